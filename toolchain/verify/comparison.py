"""Candidate against reference: layer by layer on a few images, end to end on all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from vitc.errors import VitcError
from vitc.verify.candidate import Candidate
from vitc.verify.forcing import OPTIONAL_TAPS, Reference, TapComparison
from vitc.verify.report import Accuracy, CheckReport, ConstantDifference, DifferingImage

__all__ = ["Images", "compare"]

_BATCH: Final = 16


class Pixels(Protocol):
    """Images that are read when they are asked for; an array is such, too."""

    def __len__(self) -> int: ...

    def __getitem__(self, numbers: list[int], /) -> NDArray[np.float32]:
        """The images of these numbers: float32 [len(numbers), 3, H, W], normalised."""


@dataclass(frozen=True, eq=False)
class Images:
    """What a comparison runs on.

    Attributes:
        pixels: float32 [B, 3, H, W], normalised; no more than a few are looked at at once.
        layer_images: How many from the front are compared layer by layer.
        labels: Class of each image; None if unknown.
        names: Where each image comes from; empty if nowhere.
    """

    pixels: Pixels
    layer_images: int
    labels: NDArray[np.int64] | None = None
    names: Sequence[str] = ()


@dataclass(frozen=True, eq=False)
class _EndToEnd:
    """Of each image what its logits say; the logits themselves of those that are looked at again.

    Attributes:
        own: Class by the reference.
        theirs: Class by the candidate.
        difference: Largest difference of its logits.
        tolerance: Largest difference that rounding explains.
        beyond: Whether one of its logits differs by more than rounding explains.
        logits: Number of an image to the candidate's logits, float32 [classes].
    """

    own: NDArray[np.int64]
    theirs: NDArray[np.int64]
    difference: NDArray[np.float64]
    tolerance: NDArray[np.float64]
    beyond: NDArray[np.bool_]
    logits: Mapping[int, NDArray[np.float32]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        reference: NDArray[np.float64],
        bound: NDArray[np.float64],
        candidate: NDArray[np.float32],
    ) -> _EndToEnd:
        """What the logits [B, classes] of both say, and how far rounding may part them."""
        gap = np.nan_to_num(np.abs(candidate.astype(np.float64) - reference), nan=np.inf)
        return cls(
            reference.argmax(axis=1),
            candidate.argmax(axis=1),
            gap.max(axis=1),
            bound.max(axis=1),
            np.asarray((gap > bound).any(axis=1)),
        )

    def differing(self) -> list[int]:
        wrong = self.beyond | (self.own != self.theirs)
        return np.flatnonzero(wrong).tolist()


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
    chosen = sorted({*range(min(images.layer_images, len(images.pixels))), *differing})
    explained: dict[int, bool] = {}
    for numbers in _chunks(chosen):
        say(f"comparing layers, image {numbers[0] + 1} to {numbers[-1] + 1}")
        pixels = images.pixels[numbers]
        trace = candidate.trace(pixels)
        untraced = np.stack([ends.logits[number] for number in numbers])
        if same_when_traced and not _same_bits(untraced, trace["logits"]):
            found.append("the logits change when the run is traced")
        drift = reference.drift(pixels, trace)
        explained.update(
            zip(numbers, drift.accounts_for("logits", trace["logits"]).tolist(), strict=True)
        )
        comparison.images = numbers
        reference.compare(pixels, comparison, trace, drift)
    lacking = [name for name in comparison.missing if not name.endswith(OPTIONAL_TAPS)]
    found += [f"the candidate does not hand out {name}" for name in lacking]

    first = _first_difference(comparison, parameters)
    read = getattr(reference.model, "load_report", None)
    own, theirs = ends.own, ends.theirs
    described = tuple(
        DifferingImage(
            index=i,
            name=images.names[i] if images.names else "",
            reference=int(own[i]),
            candidate=int(theirs[i]),
            logit_difference=float(ends.difference[i]),
            explained=first is None and explained[i],
        )
        for i in differing
    )
    if first is None and not all(image.explained for image in described):
        first = "logits"
    return CheckReport(
        candidate=str(candidate.path),
        device=candidate.device,
        machine=candidate.machine,
        images=len(images.pixels),
        layer_images=len(chosen),
        layers=comparison.layers,
        max_logit_difference=float(ends.difference.max()),
        top1_agreement=float((own == theirs).mean()),
        logit_tolerance=float(ends.tolerance.max()),
        missing=tuple(comparison.missing),
        near_ties=tuple(comparison.near_ties),
        parameters=tuple(parameters),
        accuracy=None
        if images.labels is None
        else Accuracy(
            float((own == images.labels).mean()), float((theirs == images.labels).mean())
        ),
        differing_images=described,
        zero_weights={} if read is None else read.zero_weights,
        faults=tuple(found),
        onnx=onnx,
        first_difference=_earlier(first, onnx, [layer.name for layer in comparison.layers]),
    )


def _same_bits(one: NDArray[np.float32], other: NDArray[np.float32]) -> bool:
    return bool(np.array_equal(one.view(np.uint32), other.view(np.uint32)))


def _run_both(
    candidate: Candidate, reference: Reference, images: Images, say: Callable[[str], None]
) -> _EndToEnd:
    parts: list[_EndToEnd] = []
    kept: dict[int, NDArray[np.float32]] = {}
    total = len(images.pixels)
    for numbers in _chunks(range(total)):
        say(f"comparing logits, {numbers[-1] + 1} of {total} images")
        pixels = images.pixels[numbers]
        (own, bound), theirs = reference.logits(pixels), candidate.logits(pixels)
        if own.shape != theirs.shape:
            raise VitcError(
                f"The candidate's logits have shape {list(theirs.shape)}, the reference's "
                f"{list(own.shape)}.",
                "Check it against the checkpoint that it was made from.",
            )
        parts.append(_EndToEnd.of(own, bound, theirs))
        differing = set(parts[-1].differing())
        for index, number in enumerate(numbers):
            if number < images.layer_images or index in differing:
                kept[number] = theirs[index]
    return _EndToEnd(
        np.concatenate([part.own for part in parts]),
        np.concatenate([part.theirs for part in parts]),
        np.concatenate([part.difference for part in parts]),
        np.concatenate([part.tolerance for part in parts]),
        np.concatenate([part.beyond for part in parts]),
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
