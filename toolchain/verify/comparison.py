"""Candidate against reference: layer by layer on a few images, end to end on all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from vitc.errors import VitcError
from vitc.verify.candidate import Arrays, Candidate
from vitc.verify.confusion import ConfusionMatrix
from vitc.verify.forcing import OPTIONAL_TAPS, Expected, Reference, TapComparison
from vitc.verify.report import (
    Accuracy,
    CheckReport,
    ConstantDifference,
    DifferingImage,
    OutputReport,
)

__all__ = ["Given", "Images", "Judge", "compare"]

_BATCH: Final = 16
_CHECKPOINT: Final = "Check it against the checkpoint that it was made from."


class Inputs(Protocol):
    """Inputs that are read when they are asked for."""

    def __len__(self) -> int:
        """How many images there are."""

    def __getitem__(self, numbers: list[int], /) -> Arrays:
        """Arrays by the names of the inputs, of the images of these numbers: [len(numbers), ..]."""


@dataclass(frozen=True, eq=False)
class Given:
    """Inputs that are in memory.

    Attributes:
        arrays: By the names of the inputs, B in front.
    """

    arrays: Arrays

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def __getitem__(self, numbers: list[int], /) -> Arrays:
        return {name: array[numbers] for name, array in self.arrays.items()}


class Judge(Protocol):
    """Judges what both sides say of labelled images, by other means than the class of a row."""

    def add(self, numbers: Sequence[int], own: Arrays, theirs: Arrays) -> None:
        """Take outputs of the reference and of the candidate, for the images of these numbers."""

    def measures(self) -> Mapping[str, Accuracy]:
        """Figures of both, by name."""


@dataclass(frozen=True, eq=False)
class Images:
    """What a comparison runs on.

    Attributes:
        inputs: What the network takes; no more than a few images are looked at at once.
        layer_images: How many from the front are compared layer by layer.
        labels: Class of each image; None if unknown.
        classes: Names of the classes; empty if unknown.
        names: Where each image comes from; empty if nowhere.
        judge: Of networks that give maps; None for none.
    """

    inputs: Inputs
    layer_images: int
    labels: NDArray[np.int64] | None = None
    classes: Sequence[str] = ()
    names: Sequence[str] = ()
    judge: Judge | None = None


@dataclass(frozen=True, eq=False)
class _Gap:
    """How an output of both differs, by image.

    Attributes:
        difference: Largest difference.
        tolerance: Largest difference that rounding explains.
        beyond: Whether a value differs by more than rounding explains.
    """

    difference: NDArray[np.float64]
    tolerance: NDArray[np.float64]
    beyond: NDArray[np.bool_]

    @classmethod
    def between(cls, own: Expected, theirs: NDArray[Any]) -> _Gap:
        gap = np.abs(theirs.astype(np.float64) - own.value.astype(np.float64))
        gap = np.nan_to_num(gap, nan=np.inf).reshape(len(theirs), -1)
        bound = own.bound.reshape(gap.shape)
        return cls(gap.max(axis=1), bound.max(axis=1), np.asarray((gap > bound).any(axis=1)))

    @classmethod
    def joined(cls, parts: Sequence[_Gap]) -> _Gap:
        return cls(
            np.concatenate([part.difference for part in parts]),
            np.concatenate([part.tolerance for part in parts]),
            np.concatenate([part.beyond for part in parts]),
        )


@dataclass(frozen=True, eq=False)
class _Classes:
    """Class of each image, by the reference and by the candidate."""

    own: NDArray[np.int64]
    theirs: NDArray[np.int64]

    @classmethod
    def of(cls, own: Mapping[str, Expected], theirs: Arrays) -> _Classes | None:
        """Those of the only output, if that is a row of floats; else there are no classes."""
        if len(own) != 1:
            return None
        (name, wanted), *_ = own.items()
        if wanted.value.ndim != 2 or wanted.value.dtype.kind != "f":
            return None
        return cls(wanted.value.argmax(axis=1), theirs[name].argmax(axis=1))


@dataclass(frozen=True, eq=False)
class _EndToEnd:
    """Of each image how its outputs differ; the outputs themselves of those looked at again.

    Attributes:
        gaps: By output.
        classes: Of each image, where the network gives classes.
        outputs: Number of an image to the candidate's outputs for it, by name.
    """

    gaps: Mapping[str, _Gap]
    classes: _Classes | None
    outputs: Mapping[int, Mapping[str, NDArray[Any]]] = field(default_factory=dict)

    @classmethod
    def of(cls, own: Mapping[str, Expected], theirs: Arrays) -> _EndToEnd:
        """How the outputs of both differ.

        Raises:
            VitcError: If they have other names or shapes.
        """
        if own.keys() != theirs.keys():
            raise VitcError(
                f"The candidate gives {', '.join(theirs)}, the reference {', '.join(own)}.",
                _CHECKPOINT,
            )
        for name, wanted in own.items():
            if wanted.value.shape != theirs[name].shape:
                raise VitcError(
                    f"The candidate's {name} has shape {list(theirs[name].shape)}, the reference's "
                    f"{list(wanted.value.shape)}.",
                    _CHECKPOINT,
                )
        gaps = {name: _Gap.between(wanted, theirs[name]) for name, wanted in own.items()}
        return cls(gaps, _Classes.of(own, theirs))

    def differing(self) -> list[int]:
        wrong = np.logical_or.reduce([gap.beyond for gap in self.gaps.values()])
        if self.classes is not None:
            wrong = wrong | (self.classes.own != self.classes.theirs)
        return np.flatnonzero(wrong).tolist()

    def described(self, index: int, name: str, explained: bool) -> DifferingImage:
        beyond = [output for output, gap in self.gaps.items() if gap.beyond[index]]
        output = next(iter(beyond or self.gaps))
        return DifferingImage(
            index=index,
            name=name,
            reference=None if self.classes is None else int(self.classes.own[index]),
            candidate=None if self.classes is None else int(self.classes.theirs[index]),
            logit_difference=float(self.gaps[output].difference[index]),
            explained=explained,
            output=output,
        )


def compare(
    candidate: Candidate,
    reference: Reference,
    images: Images,
    *,
    parameters: Sequence[ConstantDifference] = (),
    faults: Sequence[str] = (),
    same_when_traced: bool = False,
    onnx: CheckReport | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> CheckReport:
    """Compare a candidate with the reference.

    Args:
        candidate: What is checked.
        reference: The float64 model.
        images: What to run on.
        parameters: Parameters already found to differ; they take part in `first_difference`.
        faults: Sentences about what else is already known to be wrong.
        same_when_traced: Whether the candidate's logits must have the same bits with and without a
            trace.
        onnx: The report on the candidate's ONNX file, if it has one.
        say: Told what is being done.

    Raises:
        VitcError: If the candidate cannot run, or its values have other shapes.
    """
    found = list(faults)
    comparison = TapComparison()
    ends = _run_both(candidate, reference, images, say)
    differing = ends.differing()
    chosen = sorted({*range(min(images.layer_images, len(images.inputs))), *differing})
    explained: dict[int, bool] = {}
    for numbers in _chunks(chosen):
        say(f"comparing layers, image {numbers[0] + 1} to {numbers[-1] + 1}")
        inputs = images.inputs[numbers]
        trace = candidate.trace(inputs)
        if same_when_traced:
            untraced = [ends.outputs[number] for number in numbers]
            found += [
                f"the {name} change when the run is traced"
                for name in ends.gaps
                if not _same_bits(np.stack([each[name] for each in untraced]), trace[name])
            ]
        drift = reference.drift(inputs, trace)
        accounted = np.logical_and.reduce(
            [drift.accounts_for(name, trace[name]) for name in ends.gaps]
        )
        explained.update(zip(numbers, accounted.tolist(), strict=True))
        comparison.images = numbers
        reference.compare(inputs, comparison, trace, drift)
    lacking = [name for name in comparison.missing if not name.endswith(OPTIONAL_TAPS)]
    found += [f"the candidate does not hand out {name}" for name in lacking]

    first = _first_difference(comparison, parameters)
    read = getattr(reference.model, "load_report", None)
    described = tuple(
        ends.described(i, images.names[i] if images.names else "", first is None and explained[i])
        for i in differing
    )
    first = first or next((image.output for image in described if not image.explained), None)
    outputs = tuple(
        OutputReport(name, float(gap.difference.max()), float(gap.tolerance.max()))
        for name, gap in ends.gaps.items()
    )
    classes = ends.classes
    return CheckReport(
        candidate=str(candidate.path),
        device=candidate.device,
        machine=candidate.machine,
        images=len(images.inputs),
        layer_images=len(chosen),
        layers=comparison.layers,
        outputs=outputs,
        top1_agreement=None if classes is None else float((classes.own == classes.theirs).mean()),
        missing=tuple(comparison.missing),
        near_ties=tuple(comparison.near_ties),
        parameters=tuple(parameters),
        accuracy=None
        if images.labels is None or classes is None
        else Accuracy(
            float((classes.own == images.labels).mean()),
            float((classes.theirs == images.labels).mean()),
        ),
        confusion=None
        if images.labels is None or classes is None
        else ConfusionMatrix.of(images.labels, classes.own, classes.theirs, images.classes),
        differing_images=described,
        measures={} if images.judge is None else images.judge.measures(),
        zero_weights={} if read is None else read.zero_weights,
        faults=tuple(found),
        onnx=onnx,
        first_difference=_earlier(first, onnx, [layer.name for layer in comparison.layers]),
    )


def _same_bits(one: NDArray[Any], other: NDArray[Any]) -> bool:
    return one.dtype == other.dtype and one.tobytes() == other.tobytes()


def _run_both(
    candidate: Candidate, reference: Reference, images: Images, say: Callable[[str], None]
) -> _EndToEnd:
    parts: list[_EndToEnd] = []
    kept: dict[int, dict[str, NDArray[Any]]] = {}
    total = len(images.inputs)
    for numbers in _chunks(range(total)):
        say(f"comparing outputs, {numbers[-1] + 1} of {total} images")
        inputs = images.inputs[numbers]
        followed = sum(number < images.layer_images for number in numbers)
        # First, for a candidate that is still being opened elsewhere.
        own = reference.outputs(inputs, followed=followed)
        theirs = candidate.outputs(inputs)
        parts.append(_EndToEnd.of(own, theirs))
        if images.judge is not None:
            values = {name: expected.value for name, expected in own.items()}
            images.judge.add(numbers, values, theirs)
        differing = set(parts[-1].differing())
        for index, number in enumerate(numbers):
            if number < images.layer_images or index in differing:
                kept[number] = {name: array[index] for name, array in theirs.items()}
    classes = [part.classes for part in parts if part.classes is not None]
    return _EndToEnd(
        {name: _Gap.joined([part.gaps[name] for part in parts]) for name in parts[0].gaps},
        _Classes(
            np.concatenate([each.own for each in classes]),
            np.concatenate([each.theirs for each in classes]),
        )
        if classes
        else None,
        kept,
    )


def _chunks(numbers: Iterable[int]) -> Iterator[list[int]]:
    everything = list(numbers)
    for start in range(0, len(everything), _BATCH):
        yield everything[start : start + _BATCH]


def _first_difference(
    comparison: TapComparison, parameters: Sequence[ConstantDifference]
) -> str | None:
    order = [layer.name for layer in comparison.layers]
    places = [
        (order.index(layer.name), 0, layer.name) for layer in comparison.layers if not layer.equal
    ]
    for parameter in parameters:
        place = _tap_of(parameter, order) or parameter.layer
        places.append((_rank(place, order), 1, place))
    return min(places)[2] if places else None


def _tap_of(parameter: ConstantDifference, order: Sequence[str]) -> str | None:
    """The tap whose computation reads the parameter, as its name says; None if it does not."""
    named = [tap for tap in order if parameter.name.startswith((f"{tap}.", f"{tap}/"))]
    return max(named, key=len) if named else None


def _earlier(own: str | None, onnx: CheckReport | None, order: Sequence[str]) -> str | None:
    """The first of the candidate's difference and that of its ONNX file."""
    inner = None if onnx is None else onnx.first_difference
    places = [name for name in (own, inner) if name is not None]
    return min(places, key=lambda name: _rank(name, order)) if places else None


def _rank(layer: str, order: Sequence[str]) -> int:
    for position, name in enumerate(order):
        if name == layer or name.startswith(f"{layer}."):
            return position
    return len(order)
