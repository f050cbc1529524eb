"""Schemes as networks compute them: against the specification in numpy, and between their steps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.models.family_reference import Deit
from vitc import names
from vitc.errors import VitcError
from vitc.models import (
    ModelConfig,
    Network,
    binary_modules,
    load,
    preset,
    random_images,
    random_model,
    save,
)
from vitc.models.binary_linear import BinaryLinear, begin_epoch, narrow
from vitc.models.layers.attention import BinaryAttention
from vitc.models.schemes import BIT, BIT_ELASTIC, SCHEMES

SMALL = ModelConfig(
    image_size=20,
    patch_size=5,
    width=44,
    depth=2,
    heads=4,
    hidden=35,
    classes=3,
    si=True,
    si_hidden=17,
)


def reference(model: Network) -> Deit:
    tensors = {name: tensor.double().numpy() for name, tensor in model.state_dict().items()}
    config = model.config
    assert isinstance(config, ModelConfig)
    return Deit(tensors, config.scheme, config.heads, config.elastic)


def on_a_grid(model: Network, step: float = 2.0**-6) -> Network:
    """Round parameters so that exact zeros occur before signs and in centred weights."""
    with torch.no_grad():
        for module in binary_modules(model).values():
            assert isinstance(module, BinaryLinear)
            module.weight.copy_((module.weight / step).round() * step)
            module.weight[0] = step
            module.bias.copy_(module.bias.round())
    return model


def test_names_and_table_agree() -> None:
    assert names.SCHEMES.known == tuple(SCHEMES)
    assert all(entry.name == name and entry.source for name, entry in SCHEMES.items())


@pytest.mark.parametrize(
    ("scheme", "elastic"), [*((scheme, False) for scheme in SCHEMES), ("bit", True)]
)
@pytest.mark.parametrize("ties", [False, True])
def test_networks_compute_what_the_specification_says(
    scheme: str, elastic: bool, ties: bool
) -> None:
    for seed in range(3):
        model = random_model(replace(SMALL, scheme=scheme, elastic=elastic), seed)
        model = on_a_grid(model) if ties else model
        images = random_images(model.config, 3, seed).double()
        wanted = reference(model).logits(images.numpy())
        with torch.no_grad():
            got = model.double()(images).numpy()
        assert np.abs(got - wanted).max() < 1e-8


def test_recu_scales_may_be_negative_and_zero() -> None:
    model = random_model(replace(SMALL, scheme="recu"), 3)
    for module in binary_modules(model).values():
        assert isinstance(module, BinaryLinear)
        alpha = module.alpha
        assert (alpha < 0).any()
        assert (alpha == 0).any()
        assert (alpha > 0).any()


@pytest.mark.parametrize("scheme", list(SCHEMES))
def test_a_scheme_and_its_parameters_survive_a_checkpoint(scheme: str, tmp_path: Path) -> None:
    model = random_model(replace(SMALL, scheme=scheme), 4)
    save(model, tmp_path / "m.safetensors")
    again = load(tmp_path / "m.safetensors")
    assert again.config == model.config
    wanted, got = model.state_dict(), again.state_dict()
    assert list(wanted) == list(got)
    assert all(torch.equal(wanted[name], got[name]) for name in wanted)


def test_a_checkpoint_of_one_scheme_is_not_read_as_another(tmp_path: Path) -> None:
    save(random_model(replace(SMALL, scheme="recu"), 4), tmp_path / "m.safetensors")
    with pytest.raises(VitcError, match="scheme recu, not bibert"):
        load(tmp_path / "m.safetensors", scheme="bibert")


@pytest.mark.parametrize("scheme", list(SCHEMES))
def test_training_learns_every_parameter(scheme: str) -> None:
    model = random_model(replace(SMALL, scheme=scheme), 5).train()
    model(random_images(SMALL, 8, 6)).square().sum().backward()
    without = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None or not parameter.grad.abs().sum() > 0
    ]
    assert without == []


def test_only_bit_has_a_mask_of_its_own() -> None:
    with pytest.raises(VitcError, match="recu has no elastic mask"):
        random_model(replace(SMALL, scheme="recu", elastic=True), 0)


def test_an_elastic_row_may_attend_to_nothing_and_never_by_equal_halves() -> None:
    attention = BinaryAttention(8, 1, 4, scheme=BIT_ELASTIC)
    with torch.no_grad():
        attention.get_parameter("clip_attn").fill_(0.5)
    # Four equal scores: each p is 1/4, which is alpha / 2 and not more.
    rule = BIT_ELASTIC.mask(attention)
    assert rule(torch.full((1, 4), 3, dtype=torch.int32)).tolist() == [[0, 0, 0, 0]]
    assert rule(torch.tensor([[8, 8, -8, -8]], dtype=torch.int32)).tolist() == [[1, 1, 0, 0]]


@pytest.mark.parametrize("elastic", [False, True])
def test_masks_of_learned_temperatures_are_those_of_a_float64_softmax(elastic: bool) -> None:
    rng = np.random.default_rng(5)
    for _ in range(40):
        d, keys = int(rng.integers(1, 130)), int(rng.integers(1, 70))
        attention = BinaryAttention(d, 1, keys, scheme=BIT_ELASTIC if elastic else BIT)
        clips = {"clip_query": rng.normal(1, 1), "clip_key": rng.normal(1, 1)}
        clips["clip_attn"] = rng.uniform(0, 6 / keys)
        with torch.no_grad():
            for name, value in clips.items():
                attention.get_parameter(name).fill_(value)
        got = {name: max(float(attention.get_parameter(name).double()), 1e-5) for name in clips}
        scores = d - 2 * rng.integers(0, d + 1, (50, keys))
        s = got["clip_query"] * got["clip_key"] / np.sqrt(d)
        p = np.exp(s * (scores - scores.max(axis=1, keepdims=True)))
        p /= p.sum(axis=1, keepdims=True)
        cut = got["clip_attn"] / 2 if elastic else p.max(axis=1, keepdims=True) / 4
        sure = np.abs(p - cut) > 1e-9
        wanted = p > cut
        found = attention.scheme.mask(attention)(torch.from_numpy(scores.astype(np.int32)))
        assert np.array_equal(found.numpy()[sure], wanted[sure])
        assert sure.mean() > 0.99


def test_the_scale_of_a_mask_is_learned_and_begins_with_its_mean() -> None:
    attention = BinaryAttention(8, 2, 5, scheme=BIT).double()
    p = torch.rand(3, 2, 5, 5).double().softmax(dim=-1).requires_grad_()
    upstream = torch.randn(p.shape).double()
    values = BIT.masked(attention, p)
    alpha = attention.get_parameter("clip_attn")
    assert float(alpha) == pytest.approx(4 / 5)
    mask = (p >= p.amax(dim=-1, keepdim=True) / 4).double()
    torch.testing.assert_close(values, mask * alpha)
    values.backward(upstream)
    assert torch.equal(p.grad, upstream)  # type: ignore[arg-type]
    torch.testing.assert_close(alpha.grad, (upstream * mask).sum() / p.numel() ** 0.5)


def test_recu_moves_tau_by_the_epoch() -> None:
    model = random_model(replace(SMALL, scheme="recu"), 6)
    found = []
    for epoch in range(4):
        begin_epoch(model, epoch, 4)
        found.append({float(m.tau) for m in binary_modules(model).values()})  # type: ignore[union-attr, arg-type]
    wanted = [0.85 + 0.14 * (np.exp(e / 4) - 1) / (np.e - 1) for e in range(4)]
    assert [len(each) for each in found] == [1] * 4
    assert [each.pop() for each in found] == pytest.approx(wanted)


@pytest.mark.parametrize("scheme", list(SCHEMES))
def test_wide_weights_take_part_as_they_are(scheme: str) -> None:
    linear = BinaryLinear(13, 6, scheme, weight_bits=32).double()
    x = torch.randn(2, 5, 13).double()
    with torch.no_grad():
        linear.bias.normal_()
        moved = x if linear.move is None else x + linear.move.bias.normal_()
    linear.train()
    first = linear(linear.binarize(x)).detach()
    scale = linear.get_parameter("input_clip_val").detach() if scheme == "bit" else 1.0
    signs = torch.where(moved >= 0, 1.0, -1.0).double()
    wanted = (scale * (signs @ linear.weight.T) + linear.bias).detach()
    torch.testing.assert_close(first, wanted)
    torch.testing.assert_close(linear.eval()(linear.binarize(x)).detach(), wanted)


@pytest.mark.parametrize("scheme", list(SCHEMES))
def test_the_second_step_begins_with_the_scales_and_biases_of_the_first(scheme: str) -> None:
    linear = BinaryLinear(13, 6, scheme).double().eval()
    with torch.no_grad():
        linear.bias.normal_()
        bias = linear.bias.clone()
    narrow(torch.nn.ModuleList([linear]))
    _, scale, added = linear.constants()
    sizes = linear.weight.detach().abs()
    means = sizes.mean(dim=1) if scheme != "bit" else sizes.mean().expand(6)
    torch.testing.assert_close(scale, means)
    torch.testing.assert_close(added, bias)


def test_presets_are_bibert() -> None:
    assert preset("micro").config.scheme == "bibert"
