"""Schemes against their own official code, whose results the golden files hold."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from vitc.models.binary_linear import BinaryLinear, FrozenBinaryLinear
from vitc.models.layers.attention import BinaryAttention
from vitc.models.schemes import BIT, BIT_ELASTIC, SCHEMES
from vitc.models.schemes.bit import elastic_bit
from vitc.models.schemes.recu import tau_of

_PARTS = {"x", "weight", "bias", "alpha", "move"}


def cases(golden: Path, name: str) -> dict[str, dict[str, Tensor]]:
    """Case to name to tensor."""
    found: dict[str, dict[str, Tensor]] = {}
    for key, tensor in load_file(golden / "schemes" / f"{name}.safetensors").items():
        case, _, rest = key.partition(".")
        found.setdefault(case, {})[rest] = tensor
    return found


def close(got: Tensor | None, wanted: Tensor, what: str, share: float = 1e-9) -> None:
    """Within a share of the largest entry, which is what the golden files promise."""
    assert got is not None, what
    limit = share * float(wanted.abs().max()) + 1e-11
    torch.testing.assert_close(got, wanted, rtol=0, atol=limit, msg=lambda text: f"{what}: {text}")


def set_scale(owner: nn.Module, name: str, alpha: Tensor, first_batch: Tensor) -> None:
    owner.get_parameter(name).data.copy_(alpha)
    owner.get_buffer(f"{name}_initialised").fill_(not first_batch.item())


def linear_of(scheme: str, case: dict[str, Tensor]) -> BinaryLinear:
    outputs, inputs = case["weight"].shape
    linear = BinaryLinear(inputs, outputs, scheme).double()
    if scheme == "bit":
        set_scale(linear, "input_clip_val", case["alpha"], case["first_batch"])
        linear.get_parameter("move.bias").data.copy_(case["move"])
    with torch.no_grad():
        linear.weight.copy_(case["weight"])
        linear.bias.copy_(case.get("bias", torch.zeros(outputs)))
        if scheme == "recu":
            linear.alpha.copy_(case["alpha"])
            linear.tau.copy_(case["tau"].reshape(()))
    return linear.train(bool(case.get("training", torch.ones(())).item()))


@pytest.mark.parametrize("scheme", ["bibert", "recu"])
def test_golden_linears_have_the_official_outputs_and_gradients(golden: Path, scheme: str) -> None:
    for name, case in cases(golden, f"{scheme}_linear").items():
        linear = linear_of(scheme, case)
        x = case["x"].double().requires_grad_()
        values = SCHEMES[scheme].inputs(linear, x)
        assert torch.equal(values.sign(), case["act_sign"].double()), name
        output = SCHEMES[scheme].product(linear, values)
        close(output.detach(), case["f64.output"], f"{name} output")
        output.backward(case["upstream"].double())
        for part in sorted(_PARTS & {key.removeprefix("f64.grad.") for key in case}):
            given = x.grad if part == "x" else linear.get_parameter(part).grad
            close(given, case[f"f64.grad.{part}"], f"{name} gradient of {part}")


def test_golden_bit_linears_have_the_official_outputs_and_gradients(golden: Path) -> None:
    for name, case in cases(golden, "bit_linear").items():
        if not case["layerwise"]:
            continue  # a scale for each row is no form of ours
        linear = linear_of("bit", case)
        x = case["x"].double().requires_grad_()
        assert linear.move is not None
        if case["symmetric"]:
            values = linear.binarize(x)
            assert torch.equal(values.sign(), case["act_sign"].double()), name
        else:
            values = elastic_bit(linear, "input_clip_val", linear.move(x))
            assert torch.equal(values > 0, case["act_sign"] > 0), name
        output = BIT.product(linear, values)
        close(output.detach(), case["f64.output"], f"{name} output")
        output.backward(case["upstream"].double())
        given = {
            "x": x.grad,
            "weight": linear.weight.grad,
            "move": linear.move.bias.grad,
            "alpha": linear.get_parameter("input_clip_val").grad,
            "bias": linear.bias.grad,
        }
        for part in given:
            if f"f64.grad.{part}" in case:
                close(given[part], case[f"f64.grad.{part}"], f"{name} gradient of {part}")
        after = linear.get_parameter("input_clip_val").detach()
        close(after, case["f64.alpha_after"], f"{name} alpha")
        assert linear.get_buffer("input_clip_val_initialised")
        signs = (linear.centred() >= 0).double() * 2 - 1
        assert torch.equal(signs, case["weight_sign"].double()), name


def test_golden_bit_linears_have_the_official_outputs_at_inference(golden: Path) -> None:
    for name, case in cases(golden, "bit_linear").items():
        if case["layerwise"] and case["symmetric"] and not case["first_batch"]:
            linear = linear_of("bit", case).eval()
            bits = linear.binarize(case["x"].double())
            assert torch.equal(bits.double() * 2 - 1, case["act_sign"].double()), name
            close(linear(bits).detach(), case["f64.output"], f"{name} output")
            frozen = FrozenBinaryLinear(linear.float())
            close(frozen(bits), case["f64.output"].float(), f"{name} frozen", 1e-6)


def test_golden_elastic_masks_have_the_official_bits_and_gradients(golden: Path) -> None:
    for name, case in cases(golden, "bit_unsigned").items():
        owner = BinaryAttention(4, 1, 2, scheme=BIT_ELASTIC).double()
        set_scale(owner, "clip_attn", case["alpha"], case["first_batch"])
        p = case["input"].double().requires_grad_()
        values = BIT_ELASTIC.masked(owner, p)
        assert torch.equal(values > 0, case["mask"] > 0), name
        close(values.detach(), case["f64.output"], f"{name} output")
        values.backward(case["upstream"].double())
        close(p.grad, case["f64.grad.input"], f"{name} gradient")
        alpha = owner.get_parameter("clip_attn")
        close(alpha.grad, case["f64.grad.alpha"], f"{name} gradient of alpha")
        close(alpha.detach(), case["f64.alpha_after"], f"{name} alpha")


def test_golden_bit_attentions_have_the_official_integers_and_gradients(golden: Path) -> None:
    for name, case in cases(golden, "bit_attention").items():
        attention = attention_of(case)
        x = case["hidden_states"].double().requires_grad_()
        signs, linears = {}, {}
        for which in ("query", "key", "value"):
            part = {key: case[f"param.{which}.{key}"] for key in ("weight", "bias")}
            alpha = case[f"param.{which}.input_clip_val"]
            move = case[f"param.{which}.move.bias"]
            more = {"alpha": alpha, "move": move, "first_batch": case["first_batch"]}
            linears[which] = linear_of("bit", part | more)
            pre = linears[which](linears[which].binarize(x))
            by_head = pre.unflatten(-1, (attention.heads, -1))
            signs[which] = BIT_ELASTIC.attended(attention, by_head, which).transpose(1, 2)
            assert torch.equal(signs[which].sign(), case[f"{which}_sign"].double()), name
        scores = signs["query"] @ signs["key"].mT * attention.head_width**-0.5
        p = (scores + case["attention_mask"].double()).softmax(dim=-1)
        close(p.detach(), case["f64.probs"], f"{name} probabilities")
        mask = BIT_ELASTIC.masked(attention, p)
        assert torch.equal(mask > 0, case["mask"] > 0), name
        context = (mask @ signs["value"]).transpose(1, 2).flatten(-2)
        close(context.detach(), case["f64.context"], f"{name} context")
        context.backward(case["upstream"].double())
        close(x.grad, case["f64.grad.hidden_states"], f"{name} gradient")
        for clip in ("clip_query", "clip_key", "clip_value", "clip_attn"):
            parameter = attention.get_parameter(clip)
            close(parameter.grad, case[f"f64.grad.{clip}"], f"{name} gradient of {clip}")
            close(parameter.detach(), case[f"f64.after.{clip}"], f"{name} {clip}")
        for which, linear in linears.items():
            for part in ("weight", "bias", "move.bias", "input_clip_val"):
                wanted = case[f"f64.grad.{which}.{part}"]
                close(linear.get_parameter(part).grad, wanted, f"{name} {which}.{part}")


def attention_of(case: dict[str, Tensor]) -> BinaryAttention:
    _, tokens, width = case["hidden_states"].shape
    attention = BinaryAttention(width, int(case["heads"]), tokens, scheme=BIT_ELASTIC).double()
    for clip in ("clip_query", "clip_key", "clip_value", "clip_attn"):
        set_scale(attention, clip, case[f"param.{clip}"], case["first_batch"])
    return attention


@pytest.mark.parametrize("scheme", ["bibert", "recu"])
def test_golden_linears_have_the_official_integers_at_inference(golden: Path, scheme: str) -> None:
    for name, case in cases(golden, f"{scheme}_linear").items():
        linear = linear_of(scheme, case).eval()
        bits = linear.binarize(case["x"].double())
        assert torch.equal(bits.double() * 2 - 1, case["act_sign"].double()), name
        sign_bits, scale, bias = linear.constants()
        assert torch.equal(sign_bits.double() * 2 - 1, case["weight_sign"].double()), name
        sums = case["accumulator"].double()
        close((sums * scale + bias).detach(), case["f64.output"], f"{name} affine")
        close(linear(bits).detach(), case["f64.output"], f"{name} output")
        frozen = FrozenBinaryLinear(linear.float())
        close(frozen(bits), case["f64.output"].float(), f"{name} frozen", 1e-6)


def test_golden_tau_follows_the_official_schedule(golden: Path) -> None:
    for name, case in cases(golden, "recu_tau").items():
        epochs = int(case["epochs"])
        limits = float(case["tau_min"]), float(case["tau_max"])
        got = torch.tensor([tau_of(epoch, epochs, limits) for epoch in range(epochs)])
        close(got, case["tau"].float(), name, 1e-6)
