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
from vitc.models.schemes import SCHEMES

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
    assert isinstance(model.config, ModelConfig)
    return Deit(tensors, model.config.scheme, model.config.heads)


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


@pytest.mark.parametrize("scheme", list(SCHEMES))
@pytest.mark.parametrize("ties", [False, True])
def test_networks_compute_what_the_specification_says(scheme: str, ties: bool) -> None:
    for seed in range(3):
        model = random_model(replace(SMALL, scheme=scheme), seed)
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
    wanted = (torch.where(x >= 0, 1.0, -1.0).double() @ linear.weight.T + linear.bias).detach()
    for mode in (True, False):
        linear.train(mode)
        torch.testing.assert_close(linear(linear.binarize(x)).detach(), wanted)


@pytest.mark.parametrize("scheme", list(SCHEMES))
def test_the_second_step_begins_with_the_scales_and_biases_of_the_first(scheme: str) -> None:
    linear = BinaryLinear(13, 6, scheme).double().eval()
    with torch.no_grad():
        linear.bias.normal_()
        bias = linear.bias.clone()
    narrow(torch.nn.ModuleList([linear]))
    _, scale, added = linear.constants()
    torch.testing.assert_close(scale, linear.weight.detach().abs().mean(dim=1))
    torch.testing.assert_close(added, bias)


def test_presets_are_bibert() -> None:
    assert preset("micro").config.scheme == "bibert"
