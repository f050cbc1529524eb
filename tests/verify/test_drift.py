"""Rounding that no layer is to blame for, but that adds up until a bit flips."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from tests.verify.origins import origins
from vitc.models import PRESETS, TapEvent, observe, random_model
from vitc.verify.comparison import Given, Images, compare
from vitc.verify.forcing import Reference
from vitc.verify.inputs import probe_images

TIED, PLACE = "blocks.0.mlp.input", (0, 7, 11)


class Rounding:
    """The reference, whose stream moves by one ulp at the element that decides `PLACE`."""

    path = Path("rounding")
    device = "nowhere"
    machine: ClassVar[dict[str, Any]] = {}

    def __init__(self, model: Any, shift: float) -> None:
        self.model = model
        self.shift = shift

    def trace(self, inputs: dict[str, np.ndarray]) -> dict[str, Any]:
        seen: dict[str, Any] = {}

        def observer(event: TapEvent) -> torch.Tensor:
            value = event.value.clone()
            if event.name == "blocks.0.attn.output":
                value[PLACE] += self.shift
            seen[event.name] = value.numpy().copy()
            return value

        with torch.no_grad(), observe(observer):
            logits = self.model(torch.from_numpy(inputs["input"]).double())
        return {**seen, "logits": logits.float().numpy()}

    def outputs(self, inputs: dict[str, np.ndarray]) -> dict[str, Any]:
        return {"logits": self.trace(inputs)["logits"]}


def on_the_brink() -> tuple[Any, np.ndarray, float]:
    """A model whose pre-sign value at `PLACE` is barely positive, images, and a step over zero."""
    model, images = random_model(PRESETS["micro"].config.replace(depth=2), 3), probe_images(1, 32)

    def value() -> torch.Tensor:
        found = origins(Reference(model)._double, torch.from_numpy(images).double())
        return found[TIED].pre[PLACE]

    for _ in range(2):
        with torch.no_grad():
            model.blocks[0].norm2.bias[PLACE[1]] -= value()
    norm = model.blocks[0].norm2
    scale = norm.weight.detach() / (norm.running_var + norm.eps).sqrt()
    gain = float(scale[PLACE[1]])
    pre = float(value())
    overshoot = -2 * pre / gain if pre else -1e-9 / gain
    return model, images, overshoot


def test_a_bit_flipped_by_accumulated_rounding_is_a_near_tie_that_explains_the_logits() -> None:
    model, images, shift = on_the_brink()
    double = Reference(model)._double

    report = compare(Rounding(double, shift), Reference(model), Images(Given({"input": images}), 1))

    assert report.equal
    assert [(tie.tap, tie.index) for tie in report.near_ties] == [(TIED, PLACE)]
    assert report.near_ties[0].margin < report.near_ties[0].bound < 1e-4
    assert report.max_logit_difference > report.logit_tolerance
    assert report.differing_images[0].explained


def test_a_logit_difference_that_the_bits_do_not_account_for_is_a_difference() -> None:
    model, images, _ = on_the_brink()

    class Lying(Rounding):
        def trace(self, inputs: dict[str, np.ndarray]) -> dict[str, Any]:
            seen = super().trace(inputs)
            return {**seen, "logits": seen["logits"] + np.float32(0.01)}

    report = compare(
        Lying(Reference(model)._double, 0.0), Reference(model), Images(Given({"input": images}), 1)
    )

    assert not report.equal
    assert report.first_difference == "logits"
