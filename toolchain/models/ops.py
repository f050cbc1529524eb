"""The binary operators of a vitc network, as `torch.library` ops of namespace ``vitc``.

All act on unpacked bits: uint8 {0, 1}, where 1 stands for +1 (or for 1 in a mask). Sums are taken
as float32 products of {-1, 0, +1}, which is exact as long as fewer than 2**24 terms are added; that
stays true under reduced-precision matmul modes, because such operands fit any of them.

Importing this module registers the ops; the exporter records them as single calls. They have no
gradients. They are registered with the dispatcher itself: what `torch.library.custom_op` puts
around a kernel costs more than most of these, and importing the compiler of torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor

__all__ = [
    "biased_best_mask",
    "binarize",
    "binary_linear",
    "binary_scores",
    "byte_linear",
    "elastic_mask",
    "mask_sign_matmul",
    "quantize",
    "row_best_mask",
    "softmax_mask",
    "sum_threshold",
    "tap",
]

_Library: Any = torch.library.Library
_LIBRARY: Final = _Library("vitc", "DEF")  # operators live as long as it does


def _operator(kernel: Callable[..., Tensor]) -> Any:
    """Register a kernel as the operator of its name; that takes its place."""
    name = kernel.__name__
    _LIBRARY.define(name + torch.library.infer_schema(kernel, mutates_args=()))
    _LIBRARY.impl(name, kernel, "CompositeExplicitAutograd")
    return getattr(torch.ops.vitc, name).default


def _shape_of(operator: str) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """Register what says the shape of an operator's result, on tensors without data."""
    shape_of: Any = torch.library.register_fake(f"vitc::{operator}")
    return lambda kernel: shape_of(kernel)


def _signs(bits: Tensor) -> Tensor:
    return bits.to(torch.float32) * 2 - 1


@_operator
def binarize(x: Tensor) -> Tensor:
    """Bits of the signs of `x`, any shape: 1 where x >= 0, so sgn(0) = +1."""
    return (x >= 0).to(torch.uint8)


@_operator
def binary_linear(bits: Tensor, weight: Tensor) -> Tensor:
    """Sign products: bits [.., K] and weight bits [O, K] to int32 [.., O]."""
    return (_signs(bits) @ _signs(weight).mT).to(torch.int32)


@_operator
def binary_scores(q: Tensor, k: Tensor) -> Tensor:
    """Sign products of two activations: q and k bits [.., N, d] to int32 [.., N, N]."""
    return (_signs(q) @ _signs(k).mT).to(torch.int32)


@_operator
def byte_linear(x: Tensor, weight: Tensor) -> Tensor:
    """Bytes x [.., K] times integers, int32 [.., O]; exact below 2^31.

    Args:
        x: uint8 [.., K].
        weight: int8 [S, O, K], digits of base 128 of each integer, the highest first.
    """
    whole = torch.zeros(weight.shape[1:], dtype=torch.float64)
    for digits in weight:
        whole = whole * 128 + digits
    return (x.to(torch.float64) @ whole.mT).to(torch.int32)


@_operator
def softmax_mask(p: Tensor, ratio: float) -> Tensor:
    """Mask bits of probabilities [.., N]: 1 where p >= ratio * (largest p of the row)."""
    return (p >= ratio * p.amax(dim=-1, keepdim=True)).to(torch.uint8)


@_operator
def row_best_mask(scores: Tensor, slack: int) -> Tensor:
    """Mask bits of integer scores [.., N]: 1 where score >= (largest of the row) - 2 * slack."""
    return (scores >= scores.amax(dim=-1, keepdim=True) - 2 * slack).to(torch.uint8)


@_operator
def biased_best_mask(scores: Tensor, bias: Tensor, excluded: Tensor, cut: float) -> Tensor:
    """Mask bits of scores int32 [.., G, h, N, M] with a bias, decided in fp32 wherever it runs.

    1 where t >= fp32(rowmax(t) - cut), t = fp32(scores + bias), -inf where excluded.

    Args:
        scores: Exact integers.
        bias: [h, N, M] of fp32 values.
        excluded: bool [G, 1, N, M], or [1, 1, 1, 1].
        cut: An fp32 value.
    """
    t = scores.to(torch.float32) + bias.to(torch.float32)
    t = t.masked_fill(excluded, -torch.inf)
    least = t.amax(dim=-1, keepdim=True) - torch.tensor(cut, dtype=torch.float32)
    return (t >= least).to(torch.uint8)


@_operator
def elastic_mask(scores: Tensor, terms: Tensor, least: Tensor) -> Tensor:
    """Mask bits of integer scores [.., N] by two tables int64 [S].

    With h half of what the row's largest score has more, 1 where least[h] > sum of terms[h].
    """
    above = (scores.amax(dim=-1, keepdim=True) - scores).long() // 2
    return (least[above] > terms[above].sum(dim=-1, keepdim=True)).to(torch.uint8)


@_operator
def sum_threshold(x: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Bits of integers: 1 where x >= first + second, one addition and one comparison in fp32."""
    return (x.float() >= first.float() + second.float()).to(torch.uint8)


@_operator
def mask_sign_matmul(mask: Tensor, v: Tensor) -> Tensor:
    """Mask {0, 1} [.., N, N] times the signs of bits v [.., N, d], int32 [.., N, d]."""
    return (mask.to(torch.float32) @ _signs(v)).to(torch.int32)


@_operator
def quantize(x: Tensor, scale: float, zero: int) -> Tensor:
    """Codes uint8 of floats, any shape: x / scale to the nearest integer (ties to even) + zero."""
    return (torch.round(x / scale) + zero).clamp_(0, 255).to(torch.uint8)


@_operator
def tap(x: Tensor, name: str) -> Tensor:  # noqa: ARG001  (the name is for the exporter)
    """Identity that carries the name of a value into an exported file."""
    return x.clone()


@_shape_of("binarize")
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x, dtype=torch.uint8)


@_shape_of("binary_linear")
def _(bits: Tensor, weight: Tensor) -> Tensor:
    return bits.new_empty((*bits.shape[:-1], weight.shape[0]), dtype=torch.int32)


@_shape_of("binary_scores")
def _(q: Tensor, k: Tensor) -> Tensor:
    return q.new_empty((*q.shape[:-1], k.shape[-2]), dtype=torch.int32)


@_shape_of("byte_linear")
def _(x: Tensor, weight: Tensor) -> Tensor:
    return x.new_empty((*x.shape[:-1], weight.shape[1]), dtype=torch.int32)


@_shape_of("softmax_mask")
def _(p: Tensor, ratio: float) -> Tensor:  # noqa: ARG001
    return torch.empty_like(p, dtype=torch.uint8)


@_shape_of("row_best_mask")
def _(scores: Tensor, slack: int) -> Tensor:  # noqa: ARG001
    return torch.empty_like(scores, dtype=torch.uint8)


@_shape_of("biased_best_mask")
def _(scores: Tensor, bias: Tensor, excluded: Tensor, cut: float) -> Tensor:  # noqa: ARG001
    return torch.empty_like(scores, dtype=torch.uint8)


@_shape_of("elastic_mask")
def _(scores: Tensor, terms: Tensor, least: Tensor) -> Tensor:  # noqa: ARG001
    return torch.empty_like(scores, dtype=torch.uint8)


@_shape_of("sum_threshold")
def _(x: Tensor, first: Tensor, second: Tensor) -> Tensor:  # noqa: ARG001
    return torch.empty_like(x, dtype=torch.uint8)


@_shape_of("mask_sign_matmul")
def _(mask: Tensor, v: Tensor) -> Tensor:
    return mask.new_empty((*mask.shape[:-1], v.shape[-1]), dtype=torch.int32)


@_shape_of("quantize")
def _(x: Tensor, scale: float, zero: int) -> Tensor:  # noqa: ARG001
    return torch.empty_like(x, dtype=torch.uint8)


@_shape_of("tap")
def _(x: Tensor, name: str) -> Tensor:  # noqa: ARG001
    return torch.empty_like(x)
