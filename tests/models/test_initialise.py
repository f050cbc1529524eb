from __future__ import annotations

import pytest
import torch

from vitc.models import ModelConfig, observe, preset, random_images, random_model
from vitc.models.taps import TapEvent


def test_the_seed_decides_every_parameter(odd_config: ModelConfig) -> None:
    first, again, other = (random_model(odd_config, seed).state_dict() for seed in (1, 1, 2))
    for name, tensor in first.items():
        assert torch.equal(tensor, again[name]), name
        if not name.endswith("num_batches_tracked"):
            assert not torch.equal(tensor, other[name]), name


def test_seeding_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    random_model(preset("micro").config, 2)
    assert torch.equal(torch.rand(3), wanted)


def test_no_parameter_is_left_trivial() -> None:
    model = random_model(preset("micro").config, 3)
    for name, tensor in model.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert tensor.float().std() > 0, name
            assert (tensor != 0).all(), name


@pytest.mark.parametrize("name", ["norm1.weight", "mlp.prelu.weight", "learnablescaling"])
def test_gains_slopes_and_scales_have_both_signs(name: str) -> None:
    model = random_model(preset("micro").config, 4)
    values = torch.cat([v.flatten() for k, v in model.state_dict().items() if k.endswith(name)])
    assert (values < 0).any()
    assert (values > 0).float().mean() > 0.6


@pytest.mark.parametrize("name", ["micro", "deit-tiny"])
@pytest.mark.parametrize("si", [True, False])
def test_bits_are_neither_all_set_nor_all_clear(name: str, si: bool) -> None:
    config = preset(name).config.replace(depth=3, si=si)
    model = random_model(config, 6)
    shares: dict[str, float] = {}

    def note(event: TapEvent) -> None:
        if event.kind == "bits":
            shares[event.name] = float(event.value.float().mean())

    with observe(note), torch.no_grad():
        model(random_images(config, 4, 99))
    balanced = [share for share in shares.values() if 0.1 < share < 0.9]
    assert len(balanced) > 0.9 * len(shares), shares
    assert all(0.02 < share < 0.98 for share in shares.values()), shares


def test_logits_depend_on_the_image() -> None:
    config = preset("micro").config
    with torch.no_grad():
        logits = random_model(config, 7)(random_images(config, 16, 1))
    assert logits.std(dim=0).min() > 0.05
