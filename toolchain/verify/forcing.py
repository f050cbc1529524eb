"""One float64 forward pass of the reference that is fed, layer by layer, what the candidate had.

Each tap compares its value with the candidate's and goes on with the candidate's. So every layer is
judged on the inputs that the candidate gave it, a flipped bit does not cascade, and the first
difference names the layer at fault.

That pass goes on with the candidate's rounded stream too, so it cannot see that rounding, harmless
in every single layer, has carried a value across zero. A second pass is fed the candidate's bits
and integers only and keeps its own float64 stream. If the first pass holds, each bit in which this
one differs is a near tie, within the rounding that has added up to it; and with those bits settled
each float tap of the candidate, its outputs among them, must be within its own accumulated bound.
"""

from __future__ import annotations

import copy
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vitc.errors import VitcError
from vitc.exporter import Traced
from vitc.exporter.coverage import wide_layers
from vitc.exporter.example import inputs_of
from vitc.exporter.recording import named_outputs
from vitc.models.binary_linear import freeze
from vitc.models.fast_paths import without_fast_paths
from vitc.models.taps import Kind, TapEvent, observe
from vitc.verify.bounds import Origin, RoundingErrors
from vitc.verify.report import LayerReport, NearTie

__all__ = ["OPTIONAL_TAPS", "Expected", "Inputs", "Reference", "TapComparison"]

Arrays: TypeAlias = Mapping[str, NDArray[Any]]
Inputs: TypeAlias = NDArray[Any] | Arrays
"""The array of a single input [B, ..], or arrays by the names of the inputs."""


OPTIONAL_TAPS: Final = (".scores", ".mask", ".sums")
"""Taps that never leave a kernel of an artefact, of attention or of a patch embedding on bytes; any
other missing tap is a fault."""

_TURNED: Final = ("bits", "codes")
"""Kinds of values that rounding of the floats they come from may turn into their neighbours."""

_NO_BIT: Final = 2
_KEPT: Final = 64 << 20
"""Bytes of the reference's outputs that are kept for the next candidate."""

_LISTED: Final = 100
"""Near ties that are described; all are counted."""


@dataclass(frozen=True, eq=False)
class Expected:
    """An output of the reference.

    Attributes:
        value: float64 [B, ..]; of an output of bits or integers those.
        bound: How far fp32 may be from it, in the shape of the value.
    """

    value: NDArray[Any]
    bound: NDArray[np.float64]


class Reference:
    """The frozen PyTorch model in float64.

    Several candidates may be compared with one: what depends on none of them is computed once.

    Args:
        source: The model, traced or not; it is copied. Binary layers hold what is exported: signs,
            and scales that were rounded to fp32 once.

    Attributes:
        source: The same.
        model: The model.
        frozen: The model in inference form, in fp32.
    """

    def __init__(self, source: nn.Module | Traced) -> None:
        self.source = source
        self.model = source.model if isinstance(source, Traced) else source
        self.frozen = freeze(self.model, keep=wide_layers(self.model))
        self._double = copy.deepcopy(self.frozen).double()
        self._given: OrderedDict[bytes, dict[str, Expected]] = OrderedDict()
        self._followed: _Followed | None = None

    @torch.no_grad()
    def outputs(self, inputs: Inputs, *, followed: int = 0) -> dict[str, Expected]:
        """What the network gives, by the name of each output.

        They do not depend on a candidate, so inputs that were given before are not run again as
        long as there is room for what they came to.

        Args:
            inputs: What the network takes.
            followed: How many images from the front `drift` will be asked about. A candidate that
                has the reference's bits on one of them is followed by this run.
        """
        key = _digest(_named(inputs))
        if key not in self._given:
            errors = RoundingErrors()
            bits: dict[str, tuple[Tensor, Tensor]] = {}
            floats: dict[str, tuple[Tensor, Tensor]] = {}

            def passed(event: TapEvent) -> None:
                if not followed:
                    return
                own = event.value[:followed].clone()
                if event.kind == "float":
                    limit = _limit(errors.bound(event.value), event.value)
                    floats[event.name] = own, limit[:followed].clone()
                else:
                    bits[event.name] = own, own

            outputs = self._follow(inputs, errors, passed)
            if followed:
                front = {name: array[:followed].copy() for name, array in _named(inputs).items()}
                self._followed = _Followed(front, bits, Drift({}, floats))
            self._given[key] = {
                name: Expected(value.numpy(), _limit(errors.bound(value), value).numpy())
                for name, value in outputs.items()
            }
            while len(self._given) > 1 and sum(map(_bytes, self._given.values())) > _KEPT:
                self._given.popitem(last=False)
        self._given.move_to_end(key)
        return self._given[key]

    def _run(self, inputs: Inputs) -> dict[str, Tensor]:
        """Run in float64, in the mode and before the observer that are at work."""
        arrays = _named(inputs)
        tensors = {name: _wide(torch.from_numpy(array)) for name, array in arrays.items()}
        single = next(iter(tensors.values())) if len(tensors) == 1 else None
        example = tensors if single is None else single
        with without_fast_paths():
            return named_outputs(self._double(*inputs_of(self._double, example)))

    @torch.no_grad()
    def compare(
        self,
        inputs: Inputs,
        comparison: TapComparison,
        trace: Mapping[str, Any],
        drift: Drift | None = None,
    ) -> None:
        """Judge one traced run of the candidate, each layer on what the candidate gave it.

        Args:
            inputs: What the candidate was given.
            comparison: Collects what is found.
            trace: Name of a tap or an output to the candidate's value, B in front.
            drift: Of the same run, for the near ties in it.

        Raises:
            VitcError: If a value of the candidate has another shape.
        """
        errors = RoundingErrors()
        self._follow(
            inputs,
            errors,
            lambda event: comparison.judge(event, trace.get(event.name), errors, drift),
        )

    def _follow(
        self, inputs: Inputs, errors: RoundingErrors, visit: Callable[[TapEvent], Tensor | None]
    ) -> dict[str, Tensor]:
        """Run, and visit every tap, and every output that is none; the outputs."""
        seen: set[str] = set()

        def observer(event: TapEvent) -> Tensor | None:
            seen.add(event.name)
            with errors.paused(event.name):
                return visit(event)

        with errors, observe(observer):
            outputs = self._run(inputs)
        for name, value in outputs.items():
            if name not in seen:
                visit(TapEvent(name, _kind(value), value))
        return outputs

    @torch.no_grad()
    def drift(self, inputs: Inputs, trace: Mapping[str, Any]) -> Drift:
        """Follow the candidate's bits, but not its rounding.

        Nothing else of a candidate takes part, so an image on which the last run, of `outputs` or
        behind another candidate, went on with the same bits and integers is not run again.

        Args:
            inputs: What the candidate was given.
            trace: Name of a tap or an output to the candidate's value, B in front.
        """
        arrays, last = _named(inputs), self._followed
        if last is None or not _same(arrays, last.inputs):
            last = self._follow_bits(arrays, trace)
        elif again := last.other_images(trace):
            part = self._follow_bits(_images(arrays, again), _images(trace, again))
            last = last.replaced(again, part)
        self._followed = last
        return last.drift

    def _follow_bits(self, inputs: Arrays, trace: Mapping[str, Any]) -> _Followed:
        errors = RoundingErrors()
        flips: dict[str, dict[tuple[int, ...], Flip]] = {}
        floats: dict[str, tuple[Tensor, Tensor]] = {}
        bits: dict[str, tuple[Tensor, Tensor]] = {}

        def follow(event: TapEvent) -> Tensor | None:
            if event.kind == "float":
                floats[event.name] = event.value, _limit(errors.bound(event.value), event.value)
                return None
            theirs = _value(trace, event)
            differs = None if theirs is None else theirs != event.value
            if theirs is None or differs is None or not differs.any():
                bits[event.name] = event.value, event.value
                return theirs
            bits[event.name] = event.value, theirs
            origin = errors.origin(event.value)
            if event.kind in _TURNED and origin is not None:
                limit = _limit(origin.bound, origin.pre)
                far = _from_turning(event.kind, origin.pre, event.value, theirs)
                flips[event.name] = {
                    place: Flip(float(far[place]), float(limit[place]))
                    for place in map(tuple, torch.nonzero(differs).tolist())
                }
            return theirs

        self._follow(inputs, errors, follow)
        return _Followed(_copied(inputs), bits, Drift(flips, floats))


def _named(inputs: Inputs) -> Arrays:
    return inputs if isinstance(inputs, Mapping) else {"input": inputs}


def _digest(arrays: Arrays) -> bytes:
    found = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        found.update(repr((name, array.dtype.str, array.shape)).encode())
        found.update(np.ascontiguousarray(array).data)
    return found.digest()


def _bytes(outputs: Mapping[str, Expected]) -> int:
    return sum(each.value.nbytes + each.bound.nbytes for each in outputs.values())


def _same(one: Arrays, other: Arrays) -> bool:
    return one.keys() == other.keys() and all(
        value.dtype == other[name].dtype and np.array_equal(value, other[name])
        for name, value in one.items()
    )


def _copied(arrays: Arrays) -> Arrays:
    return {name: array.copy() for name, array in arrays.items()}


def _images(arrays: Arrays, numbers: list[int]) -> dict[str, NDArray[Any]]:
    return {name: array[numbers] for name, array in arrays.items()}


def _value(trace: Mapping[str, Any], event: TapEvent) -> Tensor | None:
    """The candidate's value of a tap, as the reference holds it; None if it has none that fits."""
    value = trace.get(event.name)
    if value is None or value.shape != event.value.shape:
        return None
    theirs = torch.from_numpy(np.ascontiguousarray(value))
    return _as_bits(theirs) if event.kind == "bits" else theirs


def _from_turning(kind: Kind, pre: Tensor, own: Tensor, theirs: Tensor) -> Tensor:
    """How far each value is from where it turns from the one bit, or code, into the other.

    Of no next neighbours, that is infinite.
    """
    if kind == "bits":
        return torch.where(theirs <= 1, pre, torch.inf)
    low = torch.minimum(own.long(), theirs.long())
    near = (theirs.long() - own.long()).abs() <= 1
    return torch.where(near, pre - (low + 0.5), torch.inf)


def _wide(value: Tensor) -> Tensor:
    return value.double() if value.is_floating_point() else value


def _kind(value: Tensor) -> Kind:
    if value.is_floating_point():
        return "float"
    return "bits" if value.dtype in (torch.uint8, torch.bool) else "int"


def _limit(bound: Tensor | None, value: Tensor) -> Tensor:
    """The bound of each element; what is exact has none to spare."""
    return torch.zeros_like(value) if bound is None else bound.expand_as(value)


@dataclass(frozen=True)
class Flip:
    """A bit of a candidate that is not that of the reference which follows its bits.

    Attributes:
        pre: The reference's pre-sign value.
        bound: How far accumulated rounding may be from it.
    """

    pre: float
    bound: float


@dataclass(frozen=True, eq=False)
class Drift:
    """What a candidate's rounding, added up over the layers, has done.

    Attributes:
        flips: Tap name to position to the bit that it flipped there.
        floats: Tap name to the value, float64, of the reference that went on with the candidate's
            bits, and how far accumulated rounding may be from it.
    """

    flips: Mapping[str, Mapping[tuple[int, ...], Flip]]
    floats: Mapping[str, tuple[Tensor, Tensor]]

    def accounts_for(self, name: str, value: NDArray[Any]) -> NDArray[np.bool_]:
        """Whether rounding accounts for all of a value of the candidate, by image: [B].

        Bits and integers follow from the bits before them, which are judged one by one.
        """
        if name not in self.floats:
            return np.ones(len(value), np.bool_)
        own, limit = self.floats[name]
        within = (torch.from_numpy(value).double() - own).abs() <= limit
        result: NDArray[np.bool_] = within.flatten(1).all(dim=1).numpy()
        return result


@dataclass(frozen=True, eq=False)
class _Followed:
    """A run that followed a candidate's bits.

    Attributes:
        inputs: What it was given.
        bits: Name of each tap of bits or integers to the reference's own, and to those that the run
            went on with.
        drift: What was found.
    """

    inputs: Arrays
    bits: Mapping[str, tuple[Tensor, Tensor]]
    drift: Drift

    def other_images(self, trace: Mapping[str, Any]) -> list[int]:
        """Numbers of the images on which a run that follows this trace goes on with other bits."""
        count = len(next(iter(self.inputs.values())))
        other = torch.zeros(count, dtype=torch.bool)
        for name, (own, went_on) in self.bits.items():
            theirs = _value(trace, TapEvent(name, _kind(own), own))
            other |= ((own if theirs is None else theirs) != went_on).reshape(count, -1).any(dim=1)
        return torch.nonzero(other).flatten().tolist()

    def replaced(self, numbers: list[int], part: _Followed) -> _Followed:
        """With the images of these numbers as another run, of those alone, found them."""
        flips: dict[str, dict[tuple[int, ...], Flip]] = {}
        for name in {**self.drift.flips, **part.drift.flips}:
            kept, found = self.drift.flips.get(name, {}), part.drift.flips.get(name, {})
            left = {place: flip for place, flip in kept.items() if place[0] not in numbers}
            left |= {(numbers[first], *rest): flip for (first, *rest), flip in found.items()}
            if left:
                flips[name] = left
        floats = _put(self.drift.floats, numbers, part.drift.floats)
        return _Followed(self.inputs, _put(self.bits, numbers, part.bits), Drift(flips, floats))


def _put(
    pairs: Mapping[str, tuple[Tensor, Tensor]],
    numbers: list[int],
    parts: Mapping[str, tuple[Tensor, Tensor]],
) -> dict[str, tuple[Tensor, Tensor]]:
    places = torch.tensor(numbers)
    return {
        name: (
            one.index_copy(0, places, parts[name][0]),
            other.index_copy(0, places, parts[name][1]),
        )
        for name, (one, other) in pairs.items()
    }


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
        near_ties: Accepted bit differences, the first 100; each layer counts its own.
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

    @property
    def _differs(self) -> bool:
        """Whether a layer is at fault, so that all that follows from it has drifted too."""
        return any(tally.mismatches for tally in self._tallies.values())

    def judge(
        self, event: TapEvent, value: Any, errors: RoundingErrors, drift: Drift | None = None
    ) -> Tensor | None:
        """Compare one tap.

        Args:
            event: What the reference computed.
            value: What the candidate computed, or None.
            errors: Rounding errors of the reference's run.
            drift: What accumulated rounding has done in the same run.

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
        if event.kind in _TURNED:
            theirs = _as_bits(theirs) if event.kind == "bits" else theirs
            origin = errors.origin(own)
            self._bits(event, theirs, origin, tally)
            flips = {} if drift is None else drift.flips.get(event.name, {})
            if flips and not self._differs:
                self._drifted(event, own != theirs, flips, tally)
        elif event.kind == "int":
            error = (theirs.double() - own.double()).abs()
            tally.max_error = max(tally.max_error, float(error.max()))
            self._mismatches(~(error == 0), tally)
        else:
            wrong = self._floats(own, _limit(errors.bound(own), own), theirs.double(), tally)
            if drift is not None and not self._differs and event.name in drift.floats:
                exact, limit = drift.floats[event.name]
                wrong |= ~((theirs.double() - exact).abs() <= limit)
            self._mismatches(wrong, tally)
        return theirs

    def _bits(self, event: TapEvent, theirs: Tensor, origin: Origin | None, tally: _Tally) -> None:
        if origin is not None and event.kind == "bits":
            tally.zeros += int((origin.pre == 0).sum())
        differs = theirs != event.value  # of two types, compared as one that holds both
        if not differs.any():
            return
        gap = (theirs.long() - event.value.long()).abs()
        tally.max_error = max(tally.max_error, float(gap.max()) if event.kind == "codes" else 1.0)
        tie = torch.zeros_like(differs)
        if origin is not None:
            limit = _limit(origin.bound, origin.pre)
            far = _from_turning(event.kind, origin.pre, event.value, theirs)
            tie = differs & (far.abs() <= limit)
            for position in torch.nonzero(tie)[: _LISTED - len(self.near_ties)].tolist():
                place = tuple(position)
                margin, bound = float(far[place].abs()), float(limit[place])
                self.near_ties.append(NearTie(event.name, self._place(place), margin, bound))
        tally.near_ties += int(tie.sum())
        self._mismatches(differs & ~tie, tally)

    def _drifted(
        self,
        event: TapEvent,
        differs: Tensor,
        flips: Mapping[tuple[int, ...], Flip],
        tally: _Tally,
    ) -> None:
        """Judge flips that this layer, given the candidate's rounded input, makes as well."""
        wrong = torch.zeros_like(differs)
        for place, flip in flips.items():
            if differs[place]:
                continue
            if abs(flip.pre) > flip.bound:
                wrong[place] = True
                continue
            tally.near_ties += 1
            if len(self.near_ties) < _LISTED:
                tie = NearTie(event.name, self._place(place), abs(flip.pre), flip.bound)
                self.near_ties.append(tie)
        self._mismatches(wrong, tally)

    def _floats(self, own: Tensor, limit: Tensor, theirs: Tensor, tally: _Tally) -> Tensor:
        error = (theirs - own).abs()
        tally.max_error = max(tally.max_error, float(error.nan_to_num(nan=torch.inf).max()))
        ratio = torch.where(error > 0, error / limit, torch.zeros_like(error))
        tally.worst = max(tally.worst, float(ratio.nan_to_num(nan=torch.inf).max()))
        # Written so that a NaN counts as a mismatch.
        return ~(error <= limit)

    def _mismatches(self, wrong: Tensor, tally: _Tally) -> None:
        count = int(wrong.sum())
        tally.mismatches += count
        if count and tally.first is None:
            tally.first = self._place(tuple(torch.nonzero(wrong)[0].tolist()))

    def _place(self, position: tuple[int, ...]) -> tuple[int, ...]:
        if not self.images:
            return position
        return (self.images[position[0]], *position[1:])


def _as_bits(value: Tensor) -> Tensor:
    """Bits of a candidate that stores them as fp32 signs {-1, +1}; what is no sign becomes 2."""
    if not value.is_floating_point():
        return value
    bits = (value > 0).to(torch.uint8)
    off = -1.0 if (value == -1).any() else 0.0
    bits[(value != 1) & (value != off)] = _NO_BIT
    return bits
