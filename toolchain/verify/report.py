"""What a check found, as data; its JSON form is stable."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from vitc.errors import ExitCode, VitcError
from vitc.verify.confusion import ConfusionMatrix

__all__ = [
    "Accuracy",
    "CheckFailedError",
    "CheckReport",
    "ConstantDifference",
    "DifferingImage",
    "LayerReport",
    "NearTie",
    "OutputReport",
]


VALUES_PER_TIE: Final = 1000
"""More near ties than one in so many values of a layer are a fault: rounding decides a few bits."""


@dataclass(frozen=True)
class NearTie:
    """A bit that differs where the float64 reference is too close to zero to call.

    Attributes:
        tap: Name of the value.
        index: Position in it, image first.
        margin: Absolute pre-sign value in the float64 reference.
        bound: How far fp32 rounding can have moved that value: the bound of its own arithmetic,
            and what the layers before it were seen to add.
    """

    tap: str
    index: tuple[int, ...]
    margin: float
    bound: float


@dataclass(frozen=True)
class LayerReport:
    """One tap, judged on the inputs that the candidate itself gave the layer.

    Attributes:
        name: Tap name.
        kind: ``bits``, ``int`` or ``float``.
        values: How many values were compared.
        mismatches: How many differ by more than rounding explains.
        near_ties: How many bits differ at a near tie.
        max_error: Largest difference (bits: 0 or 1).
        worst: Largest difference of a float over its rounding bound; 0 for bits and integers.
        zeros: How many pre-sign values are exactly zero; they count as +1.
        first: Position of the first mismatch, image first; None without one.
    """

    name: str
    kind: str
    values: int
    mismatches: int
    near_ties: int
    max_error: float
    worst: float = 0.0
    zeros: int = 0
    first: tuple[int, ...] | None = None

    @property
    def too_many_ties(self) -> bool:
        """Whether more bits are near ties than chance makes of so many values."""
        return self.near_ties > max(1, self.values // VALUES_PER_TIE)

    @property
    def equal(self) -> bool:
        """Whether nothing differs beyond rounding."""
        return not self.mismatches and not self.too_many_ties


@dataclass(frozen=True)
class ConstantDifference:
    """A parameter of the candidate that is not what the reference exports to.

    Attributes:
        layer: The layer that it belongs to, such as ``blocks.0.attn``.
        name: The parameter.
        detail: What differs.
    """

    layer: str
    name: str
    detail: str


@dataclass(frozen=True)
class Accuracy:
    """Share of correctly classified images, or another figure of both, in [0, 1]."""

    reference: float
    candidate: float


@dataclass(frozen=True)
class OutputReport:
    """An output, end to end.

    Attributes:
        name: Of the output.
        max_difference: Between candidate and reference.
        tolerance: Differences up to this need no explanation.
    """

    name: str
    max_difference: float
    tolerance: float


@dataclass(frozen=True)
class Rounded:
    """What integers instead of floats change, beside the network that they were made of.

    Attributes:
        what: What was rounded: ``int8 embedding``, ``int8 ends``, ..
        images: On how many images.
        bits: Share of the network's bits that differ.
        same_class: Share of images with the same class; None of a network without classes.
        accuracy: Of the fp32 network (reference) and of the integer one (candidate), where the
            images have labels.
    """

    what: str
    images: int
    bits: float
    same_class: float | None
    accuracy: Accuracy | None

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        own = self.accuracy
        return {
            "what": self.what,
            "images": self.images,
            "bits_that_differ": self.bits,
            "same_class": self.same_class,
            "accuracy": None if own is None else {"fp32": own.reference, "integer": own.candidate},
        }


@dataclass(frozen=True)
class DifferingImage:
    """An image of which an output differs by more than rounding, or the class does.

    Attributes:
        index: Its position among the images.
        name: Its file, if it has one.
        reference: Class the reference gives; None of a network without classes.
        candidate: Class the candidate gives.
        logit_difference: Largest difference of the output.
        explained: Whether accepted near ties account for it.
        output: The first output that differs.
    """

    index: int
    name: str
    reference: int | None
    candidate: int | None
    logit_difference: float
    explained: bool
    output: str = "logits"

    @property
    def what(self) -> str:
        """What differs, in words."""
        moved = f"{self.output} differ by {self.logit_difference:.3g}"
        if self.reference is None:
            return f"image {self.name or self.index}: {moved}"
        if self.candidate == self.reference:
            return (
                f"image {self.name or self.index}: {moved}, the class is {self.reference} in both"
            )
        return (
            f"image {self.name or self.index}: class {self.candidate} instead of "
            f"{self.reference}, {moved}"
        )


@dataclass(frozen=True)
class CheckReport:
    """What a check found.

    Attributes:
        candidate: What was checked.
        device: Where it ran.
        images: How many images were compared end to end.
        layer_images: How many of them were compared layer by layer.
        layers: Every tap that the candidate has, in the order of computation.
        missing: Taps that it does not have.
        near_ties: Accepted bit differences, the first ones of `near_tie_count`.
        parameters: Parameters that differ.
        outputs: Every output, end to end; the logits of a classifier.
        top1_agreement: Share of images with the same class; None of a network without classes.
        accuracy: Of both, where the images have labels.
        confusion: Which classes both take labelled images for; None without labels.
        differing_images: Images worth a look.
        measures: Of a network that gives maps, on labelled images: figures of both, by name.
        machine: Facts about where it ran.
        zero_weights: Binary weights whose centred latent weight is exactly 0, by layer.
        faults: Sentences about anything else that is wrong, such as a file that changed.
        onnx: The report on the artefact's own ONNX file; None if the candidate is one.
        first_difference: The first layer that differs, here or in `onnx`; None if all is equal.
        made_from: SHA-256 of the checkpoint that the candidate says it was made from, if it says.
        reference_sha256: SHA-256 of the checkpoint that it was compared with, if it is a file.
        library: What is known of the bytes of an artefact's library, in words.
        rounded: Of a network with an integer embedding or int8 ends, whose reference has them too:
            how far it is from the fp32 network; None of any other, and where that is not at hand.
    """

    candidate: str
    device: str
    images: int
    layer_images: int
    layers: tuple[LayerReport, ...]
    outputs: tuple[OutputReport, ...]
    top1_agreement: float | None
    missing: tuple[str, ...] = ()
    near_ties: tuple[NearTie, ...] = ()
    parameters: tuple[ConstantDifference, ...] = ()
    accuracy: Accuracy | None = None
    confusion: ConfusionMatrix | None = None
    differing_images: tuple[DifferingImage, ...] = ()
    measures: Mapping[str, Accuracy] = field(default_factory=dict)
    machine: Mapping[str, Any] = field(default_factory=dict)
    zero_weights: Mapping[str, int] = field(default_factory=dict)
    faults: tuple[str, ...] = ()
    onnx: CheckReport | None = None
    first_difference: str | None = None
    made_from: str | None = None
    reference_sha256: str | None = None
    library: str | None = None
    rounded: Rounded | None = None

    def __repr__(self) -> str:
        compared = f"{len(self.layers)} layers, {self.images} images"
        return f"CheckReport({self.verdict}; {compared}, {self.near_tie_count} near ties)"

    @property
    def max_logit_difference(self) -> float:
        """Largest difference of an output between candidate and float64 reference, end to end."""
        return max(output.max_difference for output in self.outputs)

    @property
    def logit_tolerance(self) -> float:
        """The tolerance of the output that is nearest to its own, or furthest beyond."""
        return max(self.outputs, key=lambda each: each.max_difference - each.tolerance).tolerance

    @property
    def near_tie_count(self) -> int:
        """How many bit differences were accepted."""
        return sum(layer.near_ties for layer in self.layers)

    @property
    def of_another_checkpoint(self) -> bool:
        """Whether the candidate names another checkpoint file than the reference."""
        known = self.made_from and self.reference_sha256
        return bool(known) and self.made_from != self.reference_sha256

    @property
    def verdict(self) -> str:
        """The result in one line: equal or not, the culprit, the cause."""
        other = (
            "made from another checkpoint than the reference" if self.of_another_checkpoint else ""
        )
        if self.equal:
            same = f"equal: {self.candidate} on {self.device}"
            return f"{same}, though {other} (the same numbers)" if other else same
        return f"not equal: {f'{other}; ' if other else ''}{self._culprit()}"

    def _culprit(self) -> str:
        place = self.first_difference
        if place is None:
            faults = self.faults or ("" if self.onnx is None else self.onnx._culprit(),)
            return faults[0] + (f" (and {len(faults) - 1} more)" if faults[1:] else "")
        # What is wrong in the ONNX file is wrong in all that was made of it.
        for part, where in ((self.onnx, "its ONNX file: "), (self, "")):
            cause = None if part is None else part._cause(place)
            if cause:
                return f"{where}first difference at {place}: {cause}"
        return f"first difference at {place}" + (f": {self.faults[0]}" if self.faults else "")

    def _cause(self, place: str) -> str | None:
        parameter = next((p for p in self.parameters if _concerns(p, place)), None)
        if parameter is not None:
            more = len(self.parameters) - 1
            rest = f" (and {more} more parameters)" if more else ""
            return (
                f"{parameter.name} is not what the reference exports to: {parameter.detail}{rest}"
            )
        layer = next((e for e in self.layers if e.name == place and not e.equal), None)
        if layer is not None and not layer.mismatches:
            return (
                f"{layer.near_ties} of {layer.values} bits differ at near ties, more than one in "
                f"{VALUES_PER_TIE}"
            )
        if layer is not None:
            kind = "values" if layer.kind == "float" else layer.kind.removesuffix("s") + "s"
            at = "" if layer.first is None else f", the first at {list(layer.first)}"
            return f"{layer.mismatches} of {layer.values} {kind} differ{at}"
        image = next((i for i in self.differing_images if not i.explained), None)
        if image is not None and place == image.output:
            return f"{image.what}, and no near tie explains it"
        return None

    @property
    def equal(self) -> bool:
        """Whether candidate and reference compute the same."""
        own = self.first_difference is None and not self.faults
        return own and (self.onnx is None or self.onnx.equal)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "equal": self.equal,
            "verdict": self.verdict,
            "first_difference": self.first_difference,
            "made_from": self.made_from,
            "reference_sha256": self.reference_sha256,
            "library": self.library,
            "rounded": None if self.rounded is None else self.rounded.to_dict(),
            "max_logit_difference": self.max_logit_difference,
            "top1_agreement": self.top1_agreement,
            "accuracy": None
            if self.accuracy is None
            else {"reference": self.accuracy.reference, "candidate": self.accuracy.candidate},
            "confusion": None if self.confusion is None else self.confusion.to_dict(),
            "measures": {
                name: {"reference": each.reference, "candidate": each.candidate}
                for name, each in self.measures.items()
            },
            "candidate": self.candidate,
            "device": self.device,
            "machine": dict(self.machine),
            "images": self.images,
            "layer_images": self.layer_images,
            "logit_tolerance": self.logit_tolerance,
            "outputs": [
                {
                    "name": output.name,
                    "max_difference": output.max_difference,
                    "tolerance": output.tolerance,
                }
                for output in self.outputs
            ],
            "faults": list(self.faults),
            "parameters": {
                "equal": not self.parameters,
                "differences": [
                    {"layer": p.layer, "name": p.name, "detail": p.detail} for p in self.parameters
                ],
            },
            "near_tie_count": self.near_tie_count,
            "near_ties": [
                {"tap": t.tap, "index": list(t.index), "margin": t.margin, "bound": t.bound}
                for t in self.near_ties
            ],
            "differing_images": [
                {
                    "index": d.index,
                    "name": d.name,
                    "reference": d.reference,
                    "candidate": d.candidate,
                    "logit_difference": d.logit_difference,
                    "explained": d.explained,
                    "output": d.output,
                }
                for d in self.differing_images
            ],
            "zeros": {
                "weights": dict(self.zero_weights),
                "activations": {layer.name: layer.zeros for layer in self.layers if layer.zeros},
            },
            "missing": list(self.missing),
            "layers": [
                {
                    "name": layer.name,
                    "kind": layer.kind,
                    "values": layer.values,
                    "mismatches": layer.mismatches,
                    "near_ties": layer.near_ties,
                    "max_error": layer.max_error,
                    "worst": layer.worst,
                    "zeros": layer.zeros,
                    "first": None if layer.first is None else list(layer.first),
                }
                for layer in self.layers
            ],
            "onnx": None if self.onnx is None else self.onnx.to_dict(),
        }

    def to_json(self) -> str:
        """The JSON form as text."""
        return json.dumps(self.to_dict(), indent=2)


def _concerns(parameter: ConstantDifference, place: str) -> bool:
    return place == parameter.layer or parameter.name.startswith((f"{place}.", f"{place}/"))


class CheckFailedError(VitcError):
    """A check that does not hold, with its report.

    Args:
        report: What was found.
        what: What was checked, for the sentence.

    Attributes:
        report: What was found.
        exit_code: Of the command that raised it.
    """

    exit_code: Final = ExitCode.NOT_EQUAL

    def __init__(self, report: CheckReport, what: str) -> None:
        place = report.first_difference or "; ".join(report.faults) or "its parts"
        super().__init__(
            f"{what} does not equal its reference: the first difference is at {place}.",
            "This is a fault in the toolchain or a damaged file; nothing was written.",
        )
        self.report = report
