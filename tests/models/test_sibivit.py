from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vitc.errors import VitcError
from vitc.models import (
    ModelConfig,
    SIBiViT,
    binary_modules,
    config_from_dict,
    observe,
    preset,
    random_images,
    random_model,
)
from vitc.models.binary_linear import BinaryLinear, FrozenBinaryLinear
from vitc.models.layers.norm import AxisNorm
from vitc.models.taps import TapEvent


def sgn(x: Tensor) -> Tensor:
    return torch.where(x >= 0, 1.0, -1.0).double()


def plain_forward(state: dict[str, Tensor], config: ModelConfig, image: Tensor) -> Tensor:
    """Section 1 of the network's description in plain float64 PyTorch, module by module."""
    s = {name: value.double() for name, value in state.items()}
    tokens, width, heads = config.tokens, config.width, config.heads
    d = width // heads

    def norm(x: Tensor, name: str) -> Tensor:
        scaled = (x - s[f"{name}.running_mean"][:, None]) / torch.sqrt(
            s[f"{name}.running_var"][:, None] + 1e-6
        )
        return scaled * s[f"{name}.weight"][:, None] + s[f"{name}.bias"][:, None]

    def linear(x: Tensor, name: str) -> Tensor:
        w = s[f"{name}.weight"]
        signs = sgn(w - w.mean(1, keepdim=True))
        return torch.einsum("...k,ok->...o", sgn(x), signs) * w.abs().mean(1) + s[f"{name}.bias"]

    def two_layer(u: Tensor, name: str) -> Tensor:
        y = linear(u + s[f"{name}.movefc1.bias"], f"{name}.fc1") + s[f"{name}.moveact1.bias"]
        y = torch.where(y > 0, y, y * s[f"{name}.prelu.weight"][:, None])
        return linear(y + s[f"{name}.moveact2.bias"] + s[f"{name}.movefc2.bias"], f"{name}.fc2")

    def attention(u: Tensor, name: str) -> Tensor:
        parts = linear(u, f"{name}.qkv").split(width, dim=-1)
        q, k, v = (
            sgn(torch.stack(part.split(d, dim=-1), dim=1) + s[f"{name}.move{letter}.bias"])
            for part, letter in zip(parts, "qkv", strict=True)
        )
        p = torch.softmax(torch.einsum("bhid,bhjd->bhij", q, k) / d**0.5, dim=-1)
        mask = (p >= 0.25 * p.max(-1, keepdim=True).values).double()
        out = torch.cat(torch.einsum("bhij,bhjd->bhid", mask, v).unbind(1), dim=-1)
        return linear(out + s[f"{name}.movefc.bias"], f"{name}.proj")

    patch = config.patch_size
    patches = image.double().unfold(2, patch, patch).unfold(3, patch, patch)
    flat = torch.einsum("bcyxij,ocij->byxo", patches, s["patch_embed.proj.weight"])
    flat = flat.flatten(1, 2) + s["patch_embed.proj.bias"]
    x = torch.cat((s["cls_token"].expand(len(image), 1, width), flat), 1) + s["pos_embed"]
    assert x.shape[1] == tokens
    for i in range(config.depth):
        name = f"blocks.{i}"
        x = x + attention(norm(x, f"{name}.norm1"), f"{name}.attn")
        out = x + two_layer(norm(x, f"{name}.norm2"), f"{name}.mlp")
        if config.si:
            columns = norm(x.mT, f"{name}.norm3")
            out = out + s[f"{name}.learnablescaling"] * two_layer(columns, f"{name}.mlp2").mT
        x = out
    return norm(x, "norm")[:, 0] @ s["head.weight"].T + s["head.bias"]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_module_computes_what_a_plain_float64_network_computes(
    odd_config: ModelConfig, seed: int
) -> None:
    model = random_model(odd_config, seed)
    images = random_images(odd_config, 3, seed + 50)
    wanted = plain_forward(model.state_dict(), odd_config, images)
    got = model.double()(images.double())
    assert wanted.std() > 0.1
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-10)


def test_train_and_eval_forward_agree_given_the_same_statistics(odd_config: ModelConfig) -> None:
    model = random_model(odd_config, 3).double()
    images = random_images(odd_config, 4, 9).double()
    wanted = model(images)
    model.train()
    for module in model.modules():
        if isinstance(module, AxisNorm):
            module.eval()
    torch.testing.assert_close(model(images), wanted, rtol=0, atol=1e-10)


def test_frozen_model_gives_the_same_bits_and_logits(odd_config: ModelConfig) -> None:
    model = random_model(odd_config, 4)
    images = random_images(odd_config, 4, 10)
    seen: list[dict[str, Tensor]] = []
    for candidate in (model, model.frozen()):
        values: dict[str, Tensor] = {}
        with observe(lambda event, values=values: values.__setitem__(event.name, event.value)):
            candidate(images)
        seen.append(values)
    assert seen[0].keys() == seen[1].keys()
    for name, value in seen[0].items():
        assert torch.equal(value, seen[1][name]), name


def test_frozen_model_holds_no_latent_weights_and_leaves_its_source_alone() -> None:
    model = random_model(preset("micro").config, 5).train()
    frozen = model.frozen()
    modules = binary_modules(frozen)
    assert all(isinstance(m, FrozenBinaryLinear) for m in modules.values())
    assert all(isinstance(m, BinaryLinear) for m in binary_modules(model).values())
    assert modules.keys() == binary_modules(model).keys()
    assert not any(name.endswith(("qkv.weight", "fc1.weight")) for name in frozen.state_dict())
    assert model.training
    assert not any(m.training for m in frozen.modules())


def test_frozen_constants_are_fp32_even_in_a_float64_model() -> None:
    frozen = random_model(preset("micro").config, 6).double().frozen()
    scale = frozen.get_submodule("blocks.0.mlp.fc1").scale
    assert isinstance(scale, Tensor)
    assert scale.dtype == torch.float64
    assert torch.equal(scale, scale.float().double())


def test_frozen_model_refuses_to_train() -> None:
    frozen = random_model(preset("micro").config, 7).frozen()
    with pytest.raises(VitcError, match="no latent weights"):
        frozen.train()


def test_exactly_centred_weight_counts_as_plus_one() -> None:
    model = random_model(preset("micro").config, 8)
    linear = model.get_submodule("blocks.0.attn.proj")
    assert isinstance(linear, BinaryLinear)
    with torch.no_grad():
        linear.weight[3] = 0.37
        linear.weight[4] = -0.11
    sign_bits, scale, _ = linear.constants()
    assert sign_bits[3:5].min() == 1
    torch.testing.assert_close(scale[3:5], torch.tensor([0.37, 0.11]))


def test_row_means_are_taken_in_float64() -> None:
    model = random_model(preset("micro").config, 8)
    linear = model.get_submodule("blocks.0.attn.proj")
    assert isinstance(linear, BinaryLinear)
    row = torch.full((64,), 1e-9)
    row[0], row[1] = 1.0, -1.0
    row[2] = 0.96e-9
    with torch.no_grad():
        linear.weight[0] = row
    # The mean is 0.968e-9; an fp32 sum loses terms beside the ones and falls below 0.96e-9.
    assert linear.constants()[0][0].tolist() == [1, 0, 0] + [1] * 61


@pytest.mark.parametrize("si", [True, False])
def test_binary_modules_number_the_binary_linear_ops(si: bool) -> None:
    config = preset("micro").config.replace(si=si, depth=2)
    modules = binary_modules(SIBiViT(config))
    assert len(modules) == 2 * (6 if si else 4)
    assert sum(m.parts for m in modules.values()) == 2 * (8 if si else 6)


@pytest.mark.parametrize("shape", [(2, 3, 224, 224), (2, 1, 32, 32), (3, 32, 32), (1, 3, 32, 31)])
def test_other_image_shapes_are_refused_with_the_shape_wanted(shape: tuple[int, ...]) -> None:
    model = SIBiViT(preset("micro").config).eval()
    with pytest.raises(VitcError, match=r"\[B, 3, 32, 32\]"):
        model(torch.zeros(shape))


def test_unknown_scheme_lists_the_known_ones() -> None:
    config = config_from_dict({**preset("micro").config.to_dict(), "scheme": "nope"})
    with pytest.raises(VitcError, match="bibert"):
        SIBiViT(config)


def test_labels_must_match_the_classes() -> None:
    with pytest.raises(VitcError, match="2 labels"):
        SIBiViT(preset("micro").config, labels=["a", "b"])


def test_every_parameter_gets_a_gradient(odd_config: ModelConfig) -> None:
    model = random_model(odd_config, 11).train()
    model(random_images(odd_config, 8, 12)).square().sum().backward()
    without = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None or not parameter.grad.abs().sum() > 0
    ]
    assert without == []


def test_latent_weights_get_the_straight_through_gradient_of_their_scheme() -> None:
    model = SIBiViT(preset("micro").config)
    linear = model.get_submodule("blocks.0.attn.proj")
    assert isinstance(linear, BinaryLinear)
    with torch.no_grad():
        linear.weight[0, 0] = 3.0
    signs = sgn(torch.randn(5, 64)).float()
    linear(signs).sum().backward()
    centred = linear.weight.detach() - linear.weight.detach().mean(1, keepdim=True)
    passed = signs.sum(0) * (centred.abs() <= 1)
    wanted = passed - passed.mean(1, keepdim=True)
    assert passed[0, 0] == 0
    assert linear.weight.grad is not None
    torch.testing.assert_close(linear.weight.grad, wanted)


def test_thirty_two_bit_weights_are_used_as_they_are(odd_config: ModelConfig) -> None:
    config = odd_config.replace(weight_bits=32, si=False)
    linear = random_model(config, 13).double().get_submodule("blocks.1.mlp.fc1")
    assert isinstance(linear, BinaryLinear)
    bits = torch.randint(0, 2, (2, 10, 21)).to(torch.uint8)
    wanted = (bits.double() * 2 - 1) @ linear.weight.T + linear.bias
    torch.testing.assert_close(linear.sections(bits)[0].value(), wanted)
    torch.testing.assert_close(linear(bits.double() * 2 - 1), wanted)


def test_thirty_two_bit_weights_cannot_be_frozen() -> None:
    model = SIBiViT(preset("micro").config.replace(weight_bits=32))
    with pytest.raises(VitcError, match="32W1A"):
        model.frozen()


def test_spatial_branch_with_scale_zero_changes_nothing() -> None:
    config = preset("micro").config
    model = random_model(config, 14)
    events: dict[str, TapEvent] = {}
    with torch.no_grad():
        for i in range(config.depth):
            scaling = model.get_parameter(f"blocks.{i}.learnablescaling")
            scaling.zero_()
    with observe(lambda event: events.__setitem__(event.name, event)):
        model(random_images(config, 2))
    assert torch.equal(events["blocks.1.mlp.output"].value, events["blocks.1.si.output"].value)
