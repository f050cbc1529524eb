"""One float64 forward pass of the reference that is fed, layer by layer, what the candidate had.

Each tap compares its value with the candidate's and goes on with the candidate's. So every layer is
judged on the inputs that the candidate gave it, a flipped bit does not cascade, and the first
difference names the layer at fault.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from vitc.errors import VitcError
from vitc.models.taps import TapEvent, observe
from vitc.verify.bounds import rounding_bound
from vitc.verify.report import LayerReport, NearTie

if TYPE_CHECKING:
    from vitc.models.sibivit import SIBiViT

__all__ = ["OPTIONAL_TAPS", "Reference", "TapComparison"]

OPTIONAL_TAPS: Final = (".scores", ".mask")
"""Taps that never leave the attention kernel of an artefact; any other missing tap is a fault."""


class Reference:
    """The PyTorch model in float64.

    Args:
        model: The model; it is copied.
    """

    def __init__(self, model: SIBiViT) -> None:
        self.model = model
        self._double = copy.deepcopy(model).double().eval().requires_grad_(False)

    @torch.no_grad()
    def logits(self, images: NDArray[np.float32]) -> NDArray[np.float64]:
        """Images [B, 3, H, W] to float64 logits [B, classes]."""
        result: NDArray[np.float64] = self._double(torch.from_numpy(images).double()).numpy()
        return result

    @torch.no_grad()
    def compare(
        self, images: NDArray[np.float32], comparison: TapComparison, trace: Mapping[str, Any]
    ) -> None:
        """Judge one traced run of the candidate.

        Args:
            images: float32 [B, 3, H, W], what the candidate was given.
            comparison: Collects what is found.
            trace: Tap name to the candidate's value, B in front.
        """

        def observer(event: TapEvent) -> Tensor | None:
            return comparison.judge(event, trace.get(event.name))

        with observe(observer):
            self._double(torch.from_numpy(images).double())


@dataclass
class _Tally:
    kind: str
    values: int = 0
    mismatches: int = 0
    near_ties: int = 0
    max_error: float = 0.0
    worst: float = 0.0
    zeros: int = 0
    first: tuple[int, ...] | None = None


@dataclass
class TapComparison:
    """Collects, over any number of passes, how each tap of a candidate compares.

    Attributes:
        images: Numbers of the images of the current pass, for the positions in the report.
        near_ties: Accepted bit differences.
        missing: Taps that the candidate does not have, in the order of computation.
    """

    images: Sequence[int] = ()
    near_ties: list[NearTie] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    _tallies: dict[str, _Tally] = field(default_factory=dict)

    @property
    def layers(self) -> tuple[LayerReport, ...]:
        """What was found so far, in the order of computation."""
        return tuple(
            LayerReport(
                name,
                tally.kind,
                tally.values,
                tally.mismatches,
                tally.near_ties,
                tally.max_error,
                tally.worst,
                tally.zeros,
                tally.first,
            )
            for name, tally in self._tallies.items()
        )

    def judge(self, event: TapEvent, value: Any) -> Tensor | None:
        """Compare one tap.

        Args:
            event: What the reference computed.
            value: What the candidate computed, or None.

        Returns:
            The candidate's value, for the reference to go on with; None if it has none.

        Raises:
            VitcError: If the candidate's value has another shape.
        """
        if value is None:
            if event.name not in self.missing:
                self.missing.append(event.name)
            return None
        own = event.value
        theirs = torch.from_numpy(np.ascontiguousarray(value))
        if theirs.shape != own.shape:
            raise VitcError(
                f"The candidate's {event.name} has shape {list(theirs.shape)}, "
                f"the reference's {list(own.shape)}.",
                "Check it against the checkpoint that it was made from.",
            )
        tally = self._tallies.setdefault(event.name, _Tally(event.kind))
        tally.values += own.numel()
        if event.kind == "bits":
            self._bits(event, own, theirs, tally)
        elif event.kind == "int":
            error = (theirs.long() - own.long()).abs()
            tally.max_error = max(tally.max_error, float(error.max()))
            self._mismatches(error != 0, tally)
        else:
            self._floats(event, own, theirs.double(), tally)
        return theirs

    def _bits(self, event: TapEvent, own: Tensor, theirs: Tensor, tally: _Tally) -> None:
        pre = event.pre
        if pre is not None:
            tally.zeros += int((pre == 0).sum())
        differs = theirs.long() != own.long()
        if not differs.any():
            return
        tally.max_error = 1.0
        bound = rounding_bound(event)
        tie = torch.zeros_like(differs)
        if pre is not None and bound is not None:
            limit = bound.expand_as(pre)
            tie = differs & (pre.abs() <= limit) & (theirs <= 1)
            for position in torch.nonzero(tie).tolist():
                place = tuple(position)
                self.near_ties.append(
                    NearTie(
                        event.name, self._place(place), float(pre[place].abs()), float(limit[place])
                    )
                )
        tally.near_ties += int(tie.sum())
        self._mismatches(differs & ~tie, tally)

    def _floats(self, event: TapEvent, own: Tensor, theirs: Tensor, tally: _Tally) -> None:
        error = (theirs - own).abs()
        bound = rounding_bound(event)
        limit = torch.zeros_like(error) if bound is None else bound.expand_as(error)
        # Written so that a NaN counts as a mismatch.
        self._mismatches(~(error <= limit), tally)
        tally.max_error = max(tally.max_error, float(error.nan_to_num(nan=torch.inf).max()))
        ratio = torch.where(error > 0, error / limit, torch.zeros_like(error))
        tally.worst = max(tally.worst, float(ratio.nan_to_num(nan=torch.inf).max()))

    def _mismatches(self, wrong: Tensor, tally: _Tally) -> None:
        count = int(wrong.sum())
        tally.mismatches += count
        if count and tally.first is None:
            tally.first = self._place(tuple(torch.nonzero(wrong)[0].tolist()))

    def _place(self, position: tuple[int, ...]) -> tuple[int, ...]:
        if not self.images:
            return position
        return (self.images[position[0]], *position[1:])
