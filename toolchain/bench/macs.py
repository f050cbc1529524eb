"""How many MACs each step of an artefact makes, and what makes them, from its manifest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vitc.runtime.manifest import StepFacts

__all__ = ["StepMacs", "step_macs"]


@dataclass(frozen=True)
class StepMacs:
    """Multiply-accumulates of one step for one image, without padding.

    Attributes:
        binary: Of 1-bit operands.
        fp: Of fp32 operands.
        unit: What makes those of 1-bit operands: `popcount`, or `int8` for AMX tiles.
    """

    binary: int
    fp: int
    unit: str | None = None


def step_macs(steps: Sequence[StepFacts], n: int = 1) -> list[StepMacs]:
    """MACs of each step of a manifest; of those over the extent of a run, for `n` rows of it."""
    rows = [n if step.tasks is None else 1 for step in steps]
    return [
        StepMacs(count * step.binary, count * step.fp, step.unit)
        for count, step in zip(rows, steps, strict=True)
    ]
