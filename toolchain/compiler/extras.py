"""What a library does beside running, because of what its entries give."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from vitc.compiler.plan import Plan
from vitc.runtime.detection import strides_of

__all__ = ["EXTRAS", "Extra", "extras_of"]


@dataclass(frozen=True)
class Extra:
    """A part of the C interface that only some libraries have.

    Attributes:
        source: C file, beside the driver.
        header: What it declares.
        fits: Whether a library of such entries has it, the first entry first.
    """

    source: str
    header: str
    fits: Callable[[Sequence[Plan]], bool]


def _scans(plans: Sequence[Plan]) -> bool:
    # What runs over the extent of a run is a scan.
    return any(step.over is not None for plan in plans for step in plan.steps)


def _detects(plans: Sequence[Plan]) -> bool:
    return bool(strides_of([port.name for port in plans[0].written]))


EXTRAS: Final = (
    Extra("vitc_search.c", "vitc_search.h", _scans),
    Extra("vitc_detect.c", "vitc_detect.h", _detects),
)
"""Of them all."""


def extras_of(program: Mapping[str, Plan]) -> list[Extra]:
    """Those of a program, whose entries are given by name, the first first."""
    plans = list(program.values())
    return [extra for extra in EXTRAS if extra.fits(plans)]
