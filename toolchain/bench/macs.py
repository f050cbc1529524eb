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


def step_macs(steps: Sequence[StepFacts]) -> list[StepMacs]:
    """MACs of each step of a manifest."""
    return [StepMacs(step.binary, step.fp, step.unit) for step in steps]
