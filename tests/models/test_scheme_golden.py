"""Schemes against their own official code, whose results the golden files hold."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from vitc.models.binary_linear import BinaryLinear, FrozenBinaryLinear
from vitc.models.schemes import SCHEMES
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
    limit = share * float(wanted.abs().max()) + 1e-12
    torch.testing.assert_close(got, wanted, rtol=0, atol=limit, msg=lambda text: f"{what}: {text}")


def linear_of(scheme: str, case: dict[str, Tensor]) -> BinaryLinear:
    outputs, inputs = case["weight"].shape
    linear = BinaryLinear(inputs, outputs, scheme).double()
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
