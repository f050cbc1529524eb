"""Ends in int8: codes of floats, integer sums, what is rounded and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import vitc
from tests.properties import conftest as shared
from tests.properties import numbers
from vitc.errors import VitcError
from vitc.models import freeze
from vitc.models.checkpoint import save
from vitc.models.embedding import with_embedding
from vitc.models.ends import (
    CodedConv2d,
    CodedLinear,
    Codes,
    calibrated,
    end_layers,
    with_ends,
)

SIDE = 32
BACKBONES = ("micro", "micro-swin", "micro-pvt", "micro-nest")


def coded(x: np.ndarray, codes: Codes) -> np.ndarray:
    """As docs/ends.md says, in numpy."""
    whole = np.rint(x / np.float32(codes.scale)) + codes.zero
    return np.clip(whole, 0, 255).astype(np.int64)


def product(rows: np.ndarray, module: CodedLinear | CodedConv2d, weight: np.ndarray) -> np.ndarray:
    """Codes [.., K] by a weight of floats [O, K], rounded as docs/ends.md says."""
    wide = weight.astype(np.float64)
    step = np.maximum(np.abs(wide).max(1) / 127, 2.0**-100).astype(np.float32)
    integers = np.clip(np.rint(wide / step[:, None].astype(np.float64)), -127, 127).astype(np.int64)
    sums = (rows - module.codes.zero) @ integers.T
    scale = (step.astype(np.float64) * module.codes.scale).astype(np.float32)
    return sums.astype(np.float32) * scale + module.bias.numpy()


def calibration(model: nn.Module, count: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(count, *model.config.input_shape, generator=generator)


def rounded(model: nn.Module) -> nn.Module:
    return with_ends(model, calibrated(model, [calibration(model)]))


@given(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4))
def test_codes_hold_zero_and_both_ends_of_a_range(one, other):
    low, high = min(one, other), max(one, other)
    codes = Codes.over(low, high)
    assert float(np.float32(codes.scale)) == codes.scale > 0
    assert coded(np.zeros(1, np.float32), codes)[0] == codes.zero
    ends = np.array([min(low, 0), max(high, 0)], np.float32)
    back = codes.scale * (coded(ends, codes) - codes.zero)
    assert np.abs(back - ends).max() <= codes.scale * 1.001


@shared.examples(25)
@given(
    numbers.rngs(),
    st.integers(1, 9),
    st.integers(1, 7),
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    st.tuples(st.integers(0, 2), st.integers(0, 2)),
    st.booleans(),
)
def test_a_convolution_is_that_of_integers(rng, colours, outputs, sides, stride, padding, bias):
    torch.manual_seed(int(rng.integers(1 << 30)))
    height, width = (int(n) for n in rng.integers(6, 13, 2))
    source = nn.Conv2d(colours, outputs, sides, stride, padding, bias=bias)
    with torch.no_grad():
        source.weight[0] = 0
    x = (rng.standard_normal((2, colours, height, width)) * 3).astype(np.float32)
    module = CodedConv2d(source, Codes.over(float(x.min()), float(x.max())), "c")
    found = module(torch.from_numpy(x)).numpy()
    (down, along), (rows, columns) = padding, sides
    around = np.pad(x, ((0, 0), (0, 0), (down, down), (along, along)))
    codes = coded(around, module.codes)
    windows = np.lib.stride_tricks.sliding_window_view(codes, sides, (2, 3))
    windows = windows[:, :, :: stride[0], :: stride[1]].transpose(0, 2, 3, 4, 5, 1)
    weight = source.weight.detach().numpy().transpose(0, 2, 3, 1).reshape(outputs, -1)
    wanted = product(windows.reshape(*windows.shape[:3], -1), module, weight)
    assert windows.shape[3:5] == (rows, columns)
    assert np.array_equal(found, wanted.transpose(0, 3, 1, 2))
    assert found.shape == source(torch.from_numpy(x)).shape


@pytest.mark.parametrize("shape", [(5, 9), (2, 4, 9), (2, 3, 4, 9)])
def test_a_linear_is_that_of_integers(shape):
    torch.manual_seed(2)
    source, x = nn.Linear(9, 6, bias=len(shape) > 2), torch.randn(shape) * 4
    module = CodedLinear(source, Codes.over(-9.0, 7.0), "l")
    wanted = product(coded(x.numpy(), module.codes), module, source.weight.detach().numpy())
    assert np.array_equal(module(x).numpy(), wanted)


def test_floats_beyond_the_range_take_its_ends_and_ties_go_to_even():
    codes = Codes(0.5, 10)
    x = torch.tensor([-1e9, -5.0, -0.25, 0.25, 0.75, 122.5, 1e9, -torch.inf, torch.inf])
    module = CodedLinear(nn.Linear(9, 1), codes, "l")
    assert module.coded(x).tolist() == [0, 0, 10, 10, 12, 255, 255, 0, 255]


@pytest.mark.parametrize(
    ("preset", "names"),
    [
        ("micro", ["head"]),
        ("micro-swin", ["stages.1.merge.reduction", "head"]),
        (
            "micro-pvt",
            [
                "stages.0.blocks.0.attn.sr",
                "stages.1.patch_embed.proj",
                "stages.1.blocks.0.attn.sr",
                "stages.2.patch_embed.proj",
                "head",
            ],
        ),
        ("micro-nest", ["stages.1.pool.conv", "head"]),
    ],
)
def test_the_products_of_floats_of_every_backbone(preset, names):
    model = vitc.new(preset)
    first, *others = end_layers(model)
    assert (first.endswith("patch_embed.proj"), others) == (True, names)
    other = rounded(model)
    assert [name for name, _, _ in other.config.ends] == names
    assert list(end_layers(other)) == [first]
    assert model.config.ends == ()
    assert {type(other.get_submodule(name)) for name in names} <= {CodedConv2d, CodedLinear}
    out = other.eval()(calibration(model))
    assert out.shape == (3, model.config.classes)
    assert not torch.equal(out, model.eval()(calibration(model)))


def test_binary_merging_leaves_fewer_products():
    model = rounded(vitc.new("micro-pvt", merge="binary"))
    assert [name for name, _, _ in model.config.ends] == ["head"]


def test_ends_beside_an_embedding_of_bytes():
    model = with_embedding(vitc.new("micro-nest", seed=2), "int15")
    pixels = torch.randint(0, 256, (3, 3, SIDE, SIDE), dtype=torch.uint8)
    other = with_ends(model, calibrated(model, [pixels]))
    assert other.config.rounded == "int15 embedding and int8 ends"
    assert [name for name, _, _ in other.config.ends] == ["stages.1.pool.conv", "head"]


def test_what_no_integers_can_be_is_left_in_floats():
    model = nn.Sequential(
        nn.Conv2d(4, 4, 3, groups=4),
        nn.Conv2d(4, 4, 3, dilation=2),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(4, 4, 3, padding="same"),
        nn.Linear(70_000, 1),
    )
    assert not end_layers(model)
    with pytest.raises(VitcError, match="no product of floats that could be in int8"):
        calibrated(model, [torch.zeros(1)])


def test_calibration_runs_in_evaluation_and_leaves_the_model_as_it_was():
    model = vitc.new("micro-swin", seed=1).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    batches = calibration(model, 4).split(2)
    found = calibrated(model, batches)
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    seen: list[torch.Tensor] = []
    merge = model.get_submodule("stages.1.merge.reduction")
    merge.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach()))
    model.eval()(calibration(model, 4))
    codes = found["stages.1.merge.reduction"]
    assert codes.scale * (255 - codes.zero) == pytest.approx(float(seen[0].max()), rel=0.01)
    assert codes.scale * codes.zero == pytest.approx(-float(seen[0].min()), rel=0.01)
    assert calibrated(model.eval(), batches) == found


def test_what_cannot_be_calibrated_is_named():
    model = vitc.new("micro")
    with pytest.raises(VitcError, match="no images to calibrate on"):
        calibrated(model, [])
    with pytest.raises(VitcError, match=r"input of stages.1.merge.reduction is not finite"):
        calibrated(vitc.new("micro-swin"), [torch.full((1, 3, SIDE, SIDE), torch.nan)])
    with pytest.raises(VitcError, match="no product of floats neck"):
        with_ends(model, {"neck": Codes(1.0, 0)})
    with pytest.raises(VitcError, match="has int8 ends already"):
        with_ends(rounded(model), {})


@pytest.mark.parametrize("codes", [(0.0, 3), (-1.0, 3), (float("nan"), 3), (1.0, 256), (1.0, 1.5)])
def test_codes_have_a_scale_and_a_zero(codes):
    with pytest.raises(VitcError, match="positive scale and a zero of 0 to 255"):
        Codes(*codes)


def test_a_rounded_network_is_no_checkpoint(tmp_path):
    with pytest.raises(VitcError, match="int8 ends is no checkpoint"):
        save(rounded(vitc.new("micro")), tmp_path / "m.safetensors")


def test_a_configuration_names_ends_only_where_there_are_some():
    model = vitc.new("micro")
    assert "ends" not in model.config.to_dict()
    config = rounded(model).config
    again = json.loads(json.dumps(config.to_dict()))
    assert type(config).from_dict(again) == config
    wrong_ends = (["h", 1.0], ["h", -1.0, 3], ["h", 1.0, 256], [1, 1.0, 3])
    for wrong in ("head", *([end] for end in wrong_ends)):
        with pytest.raises(VitcError, match="ends must be names of layers"):
            type(config).from_dict({**again, "ends": wrong})


@pytest.mark.parametrize("preset", BACKBONES)
def test_float64_has_the_same_integers(preset):
    """The frozen reference differs from the fp32 network by rounding only."""
    model = rounded(vitc.new(preset, seed=6)).eval()
    one, other = freeze(model).head, freeze(model).double().head
    assert isinstance(one, CodedLinear)
    x = torch.randn(2, one.weight.shape[2], generator=torch.Generator().manual_seed(1))
    near = one(x).double() - other(x.double())
    assert 0 < near.abs().max() < 1e-5
