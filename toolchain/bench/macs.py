"""How many MACs each step of an artefact makes, and what makes them, from its manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from vitc.errors import VitcError

__all__ = ["StepMacs", "step_macs"]

_UNITS: Final = ("popcount", "int8", None)
_KINDS: Final = ("binary", "fp")


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


def step_macs(steps: Sequence[Mapping[str, Any]]) -> list[StepMacs]:
    """MACs of each step.

    Args:
        steps: `steps` of the manifest.

    Raises:
        VitcError: If a step does not say what it makes.
    """
    return [_macs(step) for step in steps]


def _macs(step: Mapping[str, Any]) -> StepMacs:
    macs, unit = step.get("macs"), step.get("unit")
    known = macs if isinstance(macs, dict) else {}
    counts = [count for kind in _KINDS if type(count := known.get(kind)) is int and count >= 0]
    if len(counts) != len(_KINDS) or unit not in _UNITS:
        raise VitcError(
            f"The manifest does not say how much {step.get('tap')} computes.",
            "Compile the model again with this version of vitc.",
        )
    binary, fp = counts
    return StepMacs(binary, fp, unit)
