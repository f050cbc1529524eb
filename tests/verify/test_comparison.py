from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.verify.origins import origins
from vitc.errors import VitcError
from vitc.models import PRESETS, SIBiViT, TapEvent, observe, random_model
from vitc.verify.comparison import Given, Images, compare
from vitc.verify.forcing import Reference
from vitc.verify.inputs import probe_images
from vitc.verify.report import ConstantDifference

Change = Callable[[TapEvent], torch.Tensor]


def micro(seed: int = 3, depth: int = 2) -> SIBiViT:
    return random_model(PRESETS["micro"].config.replace(depth=depth), seed)


@dataclass
class FakeCandidate:
    """The reference in fp32, with faults injected at named taps; later layers see the fault."""

    model: SIBiViT
    changes: dict[str, Change]
    without: tuple[str, ...] = ()
    path: Path = Path("fake")
    device: str = "nowhere"
    machine: Mapping[str, Any] = field(default_factory=dict)

    def trace(self, inputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
        seen: dict[str, Any] = {}

        def observer(event: TapEvent) -> torch.Tensor | None:
            value = event.value
            if event.name in self.changes:
                value = self.changes[event.name](event)
            if not event.name.endswith(self.without or ("nothing",)):
                seen[event.name] = value.numpy().copy()
            return value

        with torch.no_grad(), observe(observer):
            self.model(torch.from_numpy(inputs["input"]))
        return seen

    def outputs(self, inputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
        return {"logits": FakeCandidate(self.model, self.changes).trace(inputs)["logits"]}


def flip_one(place: tuple[int, ...]) -> Change:
    def change(event: TapEvent) -> torch.Tensor:
        value = event.value.clone()
        value[place] = 1 - value[place]
        return value

    return change


def clearest(model: SIBiViT, images: np.ndarray, name: str) -> tuple[int, ...]:
    """Where the pre-sign value of a tap is largest: no rounding can flip that bit."""
    found = origins(model, torch.from_numpy(images))
    if name not in found:
        return (1, 0, 3, 4)  # no rounding can flip any bit of a mask
    pre = found[name].pre
    return tuple(int(i) for i in np.unravel_index(int(pre.abs().argmax()), tuple(pre.shape)))


def images(count: int = 3) -> Images:
    return given(probe_images(count, 32, seed=1), count)


def given(pixels: np.ndarray, layer_images: int, labels: np.ndarray | None = None) -> Images:
    return Images(Given({"input": pixels}), layer_images, labels=labels)


def pixels(images: Images) -> np.ndarray:
    return images.inputs[list(range(len(images.inputs)))]["input"]


def test_the_reference_in_fp32_equals_itself_in_float64() -> None:
    model = micro()

    report = compare(FakeCandidate(model, {}), Reference(model), images())

    assert report.equal
    assert report.first_difference is None
    assert report.max_logit_difference < 1e-4
    assert report.top1_agreement == 1.0
    assert {layer.name for layer in report.layers} >= {"embedding", "blocks.1.si.hidden", "logits"}
    assert all(layer.values > 0 for layer in report.layers)


@pytest.mark.parametrize(
    "name",
    [
        "blocks.0.attn.input",
        "blocks.0.attn.key",
        "blocks.1.attn.mask",
        "blocks.1.attn.context",
        "blocks.0.mlp.hidden",
        "blocks.1.si.input",
        "blocks.0.si.hidden",
    ],
)
def test_one_flipped_bit_names_its_tap(name: str) -> None:
    model, chosen = micro(), images()
    place = clearest(model, pixels(chosen), name)

    report = compare(FakeCandidate(model, {name: flip_one(place)}), Reference(model), chosen)

    assert not report.equal
    assert report.first_difference == name
    wrong = {layer.name: layer for layer in report.layers if not layer.equal}
    assert list(wrong) == [name]
    assert wrong[name].mismatches == 1
    assert wrong[name].first == place


def test_an_integer_off_by_two_names_its_tap() -> None:
    model, name = micro(), "blocks.1.attn.scores"

    def change(event: TapEvent) -> torch.Tensor:
        value = event.value.clone()
        value[1, 0, 3, 4] += 2
        return value

    report = compare(FakeCandidate(model, {name: change}), Reference(model), images())

    assert report.first_difference == name


@pytest.mark.parametrize(
    "name", ["embedding", "blocks.0.attn.output", "blocks.1.si.output", "logits"]
)
@pytest.mark.parametrize("error", [1e-3, float("nan")])
def test_one_float_off_by_a_thousandth_names_its_tap(name: str, error: float) -> None:
    model = micro()

    def change(event: TapEvent) -> torch.Tensor:
        value = event.value.clone()
        value.view(-1)[5] += error
        return value

    report = compare(FakeCandidate(model, {name: change}), Reference(model), images())

    assert report.first_difference == name


def test_a_flipped_near_tie_is_accepted_and_reported_with_its_margin() -> None:
    model, chosen, name = micro(), images(), "blocks.0.mlp.input"
    place = (2, 7, 11)
    # Moves one threshold onto the value at `place`, so its sign hangs on rounding.
    for _ in range(2):
        found = origins(Reference(model)._double, torch.from_numpy(pixels(chosen)).double())
        with torch.no_grad():
            model.blocks[0].norm2.bias[place[1]] -= found[name].pre[place]

    report = compare(FakeCandidate(model, {name: flip_one(place)}), Reference(model), chosen)

    assert report.equal
    assert [(tie.tap, tie.index) for tie in report.near_ties] == [(name, place)]
    assert 0 <= report.near_ties[0].margin <= report.near_ties[0].bound < 1e-4
    assert report.max_logit_difference > report.logit_tolerance
    assert [(image.index, image.explained) for image in report.differing_images] == [(2, True)]


def test_scores_and_mask_may_stay_inside_a_kernel() -> None:
    model = micro()

    report = compare(
        FakeCandidate(model, {}, without=(".scores", ".mask")), Reference(model), images()
    )

    assert report.equal
    assert "blocks.0.attn.mask" in report.missing


def test_any_other_missing_tap_is_a_fault() -> None:
    model = micro()

    report = compare(
        FakeCandidate(model, {}, without=("1.mlp.hidden",)), Reference(model), images()
    )

    assert not report.equal
    assert any("blocks.1.mlp.hidden" in fault for fault in report.faults)


def test_an_image_outside_the_layer_check_that_differs_is_traced_to_its_layer() -> None:
    model, chosen = micro(), given(probe_images(5, 32, seed=1), 1)
    name, last = "blocks.0.attn.output", pixels(chosen)[4]

    class LastImageWrong(FakeCandidate):
        def trace(self, inputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
            rows = [i for i, image in enumerate(inputs["input"]) if np.array_equal(image, last)]

            def change(event: TapEvent) -> torch.Tensor:
                value = event.value.clone()
                value[rows] += 0.5
                return value

            return FakeCandidate(model, {name: change}).trace(inputs)

        def outputs(self, inputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
            return {"logits": self.trace(inputs)["logits"]}

    report = compare(LastImageWrong(model, {}), Reference(model), chosen)

    assert report.first_difference == name
    assert [image.index for image in report.differing_images] == [4]
    assert not report.differing_images[0].explained


def test_a_differing_parameter_without_a_trace_on_the_inputs_is_named() -> None:
    model = micro()
    wrong = ConstantDifference("blocks.1.mlp", "threshold", "1 of 17 values")

    report = compare(FakeCandidate(model, {}), Reference(model), images(), parameters=[wrong])

    assert not report.equal
    assert report.first_difference == "blocks.1.mlp"


def test_the_earliest_of_tap_and_parameter_is_the_first_difference() -> None:
    model, chosen = micro(), images()
    name = "blocks.1.attn.context"
    candidate = FakeCandidate(model, {name: flip_one(clearest(model, pixels(chosen), name))})

    def first(layer: str) -> str | None:
        wrong = [ConstantDifference(layer, "weight", "")]
        return compare(candidate, Reference(model), chosen, parameters=wrong).first_difference

    assert first("blocks.0.mlp") == "blocks.0.mlp"
    assert first("blocks.1.mlp") == name


def test_bits_stored_as_signs_and_integers_stored_as_floats_are_understood() -> None:
    class Floats(FakeCandidate):
        def trace(self, inputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
            seen = super().trace(inputs)
            return {
                name: value.astype(np.float32) * 2 - 1
                if value.dtype == np.uint8 and not name.endswith("mask")
                else value.astype(np.float32)
                for name, value in seen.items()
            }

    model = micro()

    assert compare(Floats(model, {}), Reference(model), images()).equal


@pytest.mark.parametrize("wrong", [0.0, 0.5, 2.0, float("nan")])
def test_a_sign_that_is_no_sign_is_a_mismatch(wrong: float) -> None:
    name = "blocks.0.attn.value"

    class NoSign(FakeCandidate):
        def trace(self, inputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
            seen = super().trace(inputs)
            signs = seen[name].astype(np.float32) * 2 - 1
            signs[0, 1, 2, 3] = wrong
            return {**seen, name: signs}

    model = micro()

    assert compare(NoSign(model, {}), Reference(model), images()).first_difference == name


def test_a_value_of_another_shape_is_an_error_that_names_the_tap() -> None:
    model, name = micro(), "blocks.0.attn.input"

    class WrongShape(FakeCandidate):
        def trace(self, inputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
            seen = super().trace(inputs)
            return {**seen, name: seen[name][:, :-1]}

    with pytest.raises(VitcError, match=name):
        compare(WrongShape(model, {}), Reference(model), images())


def test_accuracy_is_reported_for_both_sides() -> None:
    model, chosen = micro(), images(4)
    own = Reference(model).outputs(pixels(chosen))["logits"].value.argmax(axis=1)
    labels = own.copy()
    labels[0] = (labels[0] + 1) % 10

    report = compare(FakeCandidate(model, {}), Reference(model), given(pixels(chosen), 2, labels))

    assert report.accuracy is not None
    assert (report.accuracy.reference, report.accuracy.candidate) == (0.75, 0.75)


def test_the_json_form_has_the_documented_keys() -> None:
    model = micro()

    document = compare(FakeCandidate(model, {}), Reference(model), images()).to_dict()

    assert document["equal"] is True
    assert document["first_difference"] is None
    assert {
        "max_logit_difference",
        "top1_agreement",
        "accuracy",
        "near_ties",
        "layers",
        "parameters",
        "zeros",
        "differing_images",
    } <= set(document)


def test_exact_zeros_before_a_sign_are_counted() -> None:
    model = micro()
    with torch.no_grad():
        model.blocks[0].norm1.weight[4] = 0
        model.blocks[0].norm1.bias[4] = 0

    report = compare(FakeCandidate(model, {}), Reference(model), images(2))

    zeros = {layer.name: layer.zeros for layer in report.layers}
    assert zeros["blocks.0.attn.input"] == 2 * 64
