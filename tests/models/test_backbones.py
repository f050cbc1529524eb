"""Backbones of several stages against the float64 reference written from their specification."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.models import references
from vitc.errors import VitcError
from vitc.models import (
    Network,
    NetworkConfig,
    load,
    observe,
    random_images,
    random_model,
    save,
)
from vitc.models.architectures import config_from_shapes
from vitc.models.architectures.nest import NestConfig
from vitc.models.architectures.pvt import PVTConfig
from vitc.models.architectures.swin import SwinConfig

LOGIT_TOLERANCE = 1e-4
# No value before a sign is nearer to zero than this, far more than fp32 leaves of it.
TIE = 1e-6

NEST = NestConfig(
    image_size=(24, 16),
    patch_size=2,
    widths=(14, 24, 36),
    heads=(2, 3, 3),
    depths=(1, 2, 1),
    hidden=(19, 40, 36),
    classes=5,
    si=True,
)
SWIN = SwinConfig(
    image_size=(24, 36),
    patch_size=2,
    widths=(14, 24),
    heads=(2, 3),
    depths=(2, 3),
    hidden=(19, 40),
    window=(6, 3),
    classes=5,
    si=True,
)
PVT = PVTConfig(
    image_size=(56, 32),
    patch_size=2,
    widths=(12, 14, 24),
    heads=(1, 2, 3),
    depths=(1, 1, 2),
    hidden=(30, 19, 40),
    reductions=(4, 2, 1),
    classes=5,
    si=True,
)


def bits(config: NetworkConfig, scheme: str, *, elastic: bool = False) -> NetworkConfig:
    """The same network, binarized in another way."""
    return dataclasses.replace(config, scheme=scheme, elastic=elastic)


COMPUTES: dict[str, Callable[..., np.ndarray]] = {
    "nest": references.nest,
    "swin": references.swin,
    "pvt": references.pvt,
}
CONFIGS = {
    "nest": NEST,
    "nest, layer norms": NEST.replace(norm="layer"),
    "nest without SI, square": NEST.replace(si=False, image_size=24),
    "swin": SWIN,
    "swin, layer norms, no SI": SWIN.replace(norm="layer", si=False),
    "pvt": PVT,
    "pvt, layer norms": PVT.replace(norm="layer", image_size=(32, 64)),
    "pvt, merged in bits": PVT.replace(merge="binary", image_size=24),
    "nest, merged in bits": NEST.replace(merge="binary"),
    "swin, merged in bits": SWIN.replace(merge="binary", norm="layer"),
    "pvt, BiT's own masks": bits(PVT, "bit", elastic=True).replace(image_size=24),
    "nest, BiT's own masks": bits(NEST, "bit", elastic=True),
    "swin of BiT": bits(SWIN, "bit"),
    "pvt of ReCU": bits(PVT, "recu").replace(image_size=24, merge="binary"),
    "nest of BiT, merged in bits": bits(NEST, "bit").replace(merge="binary"),
    "pvt without SI, square": PVT.replace(si=False, image_size=24),
    "nest of one level": NestConfig(
        image_size=8,
        patch_size=2,
        widths=(12,),
        heads=(2,),
        depths=(2,),
        hidden=(20,),
        classes=3,
        si=True,
    ),
}


@dataclass(frozen=True)
class Case:
    """A network without near ties, and what the reference makes of images."""

    model: Network
    images: torch.Tensor
    reference: references.Reference
    logits: np.ndarray


@pytest.fixture(scope="module", params=list(CONFIGS))
def case(request, tmp_path_factory) -> Case:
    config: NetworkConfig = CONFIGS[request.param]
    images = random_images(config, 3, 7)
    for seed in range(40):
        path: Path = tmp_path_factory.mktemp("backbone") / "m.safetensors"
        save(random_model(config, seed), path)
        reference = references.Reference(*references.read(path))
        logits = COMPUTES[config.arch](reference, images.double().numpy())
        if reference.nearest > TIE:
            return Case(load(path), images, reference, logits)
    raise AssertionError("every seed has a near tie")


def test_bits_are_those_of_the_reference(case: Case) -> None:
    found = _taken_bits(case.model, case.images)
    assert case.reference.bits
    for name, bits in case.reference.bits.items():
        np.testing.assert_array_equal(
            in_stream_order(case.model, name, found[name]), bits, err_msg=name
        )


def test_logits_are_those_of_the_reference(case: Case) -> None:
    with torch.no_grad():
        single, frozen = case.model(case.images), case.model.frozen()(case.images)
        double = case.model.frozen().double()(case.images.double())
    for logits, tolerance in ((single, 1e-4), (frozen, 1e-4), (double, 1e-9)):
        np.testing.assert_allclose(logits.numpy(), case.logits, rtol=0, atol=tolerance)


def in_stream_order(model: Network, name: str, bits: torch.Tensor) -> np.ndarray:
    """Bits of a tap without its groups, which the reference does not put side by side."""
    if "blocks" not in name or ".reduced." in name:
        return bits.numpy().astype(bool)
    if bits.ndim == 4:
        block = model.get_submodule(name.rpartition(".")[0].rpartition(".")[0])
        if name.endswith("attn.input"):
            bits = block.groups.join(bits)
        elif name.endswith("si.input"):
            bits = block.si_groups.join(bits.transpose(2, 3)).transpose(1, 2)
        else:  # hidden tokens belong to no place of the stream: group after group
            bits = bits.transpose(1, 2).flatten(2)
    return bits.numpy().astype(bool)


def _taken_bits(model: Network, images: torch.Tensor) -> dict[str, torch.Tensor]:
    events = []
    with torch.no_grad(), observe(events.append):
        model.frozen()(images)
    return {event.name: event.value for event in events if event.kind == "bits"}


def test_every_sign_of_a_trained_like_network_is_balanced(case: Case) -> None:
    for name, bits in _taken_bits(case.model, case.images).items():
        if not name.endswith(".mask"):
            assert 0.02 < bits.float().mean() < 0.98, name


def test_training_computes_what_inference_does_where_norms_stand_still(case: Case) -> None:
    model, images = random_model(case.model.config, 4), case.images
    with torch.no_grad():
        wanted = model(images)
        for module in model.modules():
            module.training = not isinstance(module, torch.nn.BatchNorm1d)
        found = model(images)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)


def test_gradients_reach_every_parameter(case: Case) -> None:
    silent: list[set[str]] = []
    for seed in (5, 6):  # the few values of a small branch may all lie where a sign has no slope
        model = random_model(case.model.config, seed).train()
        model(case.images).square().sum().backward()
        parameters = model.named_parameters()
        silent.append({n for n, p in parameters if p.grad is None or not p.grad.any()})
    assert set.intersection(*silent) == set()


def test_shapes_tell_the_configuration_of_a_square_network() -> None:
    for config in (
        NEST.replace(image_size=24),
        NEST.replace(image_size=16, norm="layer", si=False),
    ):
        shapes = {n: tuple(t.shape) for n, t in random_model(config).state_dict().items()}
        assert config_from_shapes(shapes) == config


def test_elastic_masks_are_refused_where_scores_have_a_bias() -> None:
    with pytest.raises(VitcError, match="bias of relative positions"):
        dataclasses.replace(SWIN, scheme="bit", elastic=True)


def test_the_rectangle_of_a_bare_state_dict_is_not_guessed() -> None:
    shapes = {n: tuple(t.shape) for n, t in random_model(NEST).state_dict().items()}
    with pytest.raises(VitcError, match="no square"):
        config_from_shapes(shapes)
