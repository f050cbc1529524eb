"""Layers against plain float64, in both of their forms."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from vitc.errors import VitcError
from vitc.models import observe
from vitc.models.layers.attention import BinaryAttention


def sgn(x: Tensor) -> Tensor:
    return torch.where(x >= 0, 1.0, -1.0).double()


def random_parameters(layer: nn.Module, seed: int) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return layer.double().eval()


def plain_attention(layer: BinaryAttention, u: Tensor, keys: Tensor) -> Tensor:
    """Section 3 of the paper for one group, written out."""
    s = layer.state_dict()

    def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        signs = sgn(weight - weight.mean(1, keepdim=True))
        return (sgn(x) @ signs.T) * weight.abs().mean(1) + bias

    def heads(x: Tensor, move: str) -> Tensor:
        return sgn(torch.stack(x.chunk(layer.heads, -1), dim=-3) + s[f"{move}.bias"][0])

    kv_weight, kv_bias = s["kv.weight"], s["kv.bias"]
    q = heads(linear(u, s["q.weight"], s["q.bias"]), "moveq")
    key, value = linear(keys, kv_weight, kv_bias).chunk(2, -1)
    k, v = heads(key, "movek"), heads(value, "movev")
    p = torch.softmax(q @ k.mT / layer.head_width**0.5, -1)
    mask = (p >= 0.25 * p.max(-1, keepdim=True).values).double()
    context = torch.cat((mask @ v).unbind(-3), -1) + s["movefc.bias"][0]
    return linear(context, s["proj.weight"], s["proj.bias"])


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("seed", [0, 1])
def test_queries_and_keys_may_come_from_different_inputs(seed: int, training: bool) -> None:
    layer = BinaryAttention(12, 3, 5, name="a", keys=7)
    random_parameters(layer, seed).train(training)
    generator = torch.Generator().manual_seed(seed + 9)
    u = torch.randn(3, 5, 12, generator=generator).double()
    keys = torch.randn(3, 7, 12, generator=generator).double()
    wanted = torch.stack([plain_attention(layer, *pair) for pair in zip(u, keys, strict=True)])
    torch.testing.assert_close(layer(u, keys), wanted, rtol=0, atol=1e-10)


def test_groups_attend_inside_themselves() -> None:
    layer = random_parameters(BinaryAttention(12, 3, 5, name="a"), 2)
    u = torch.randn(2, 4, 5, 12, generator=torch.Generator().manual_seed(3)).double()
    apart = torch.stack([layer(u[:, group]) for group in range(4)], dim=1)
    assert torch.equal(layer(u), apart)


@pytest.mark.parametrize("keys", [None, 7])
def test_attention_refuses_another_number_of_inputs_than_it_was_made_for(keys: int | None) -> None:
    layer = BinaryAttention(12, 3, 5, name="a", keys=keys).eval()
    u, others = torch.zeros(1, 5, 12), torch.zeros(1, 7, 12)
    with pytest.raises(VitcError, match="made for"):
        layer(u, others) if keys is None else layer(u)


def test_gradients_reach_both_inputs_and_every_parameter() -> None:
    layer = random_parameters(BinaryAttention(12, 3, 5, name="a", keys=7), 4).train()
    generator = torch.Generator().manual_seed(5)
    u, keys = (torch.randn(2, n, 12, generator=generator).double() * 0.5 for n in (5, 7))
    u.requires_grad_()
    keys.requires_grad_()
    (layer(u, keys) ** 2).sum().backward()
    named = {"u": u, "keys": keys, **dict(layer.named_parameters())}
    assert [name for name, x in named.items() if x.grad is None or not x.grad.any()] == []


def test_taps_of_training_hold_signs_of_the_names_of_inference() -> None:
    layer = random_parameters(BinaryAttention(12, 3, 5, name="a", keys=7), 6)
    u, keys = torch.randn(2, 5, 12).double(), torch.randn(2, 7, 12).double()
    seen: dict[bool, dict[str, Tensor]] = {}
    for training in (True, False):
        values = seen.setdefault(training, {})
        layer.train(training)
        with observe(lambda event, values=values: values.__setitem__(event.name, event.value)):
            layer(u, keys)
    assert seen[True].keys() == seen[False].keys()
    for name in ("a.input", "a.keys", "a.query", "a.key", "a.value", "a.context"):
        assert torch.equal(seen[True][name], seen[False][name].double() * 2 - 1), name
