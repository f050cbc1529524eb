"""Straight-through estimators: exact discrete values forward, a surrogate gradient backward."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

__all__ = ["attention_mask", "sign"]


class _Sign(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, window: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.window = window
        return (x >= 0).to(x.dtype) * 2 - 1

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return grads[0] * (x.abs() < ctx.window), None


class _Mask(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, p: Tensor, ratio: float) -> Tensor:  # noqa: ARG004
        return (p >= ratio * p.amax(dim=-1, keepdim=True)).to(p.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:  # noqa: ARG004
        return grads[0], None


def sign(x: Tensor, window: float) -> Tensor:
    """sgn(x) in {-1, +1} with sgn(0) = +1; the gradient passes where |x| < window.

    Args:
        x: Float tensor of any shape.
        window: Half-width of the clamp whose derivative stands in for that of the sign.
    """
    return cast(Tensor, _Sign.apply(x, window))  # type: ignore[no-untyped-call]


def attention_mask(p: Tensor, ratio: float) -> Tensor:
    """1 where p >= ratio * (largest p of the row), else 0; the gradient goes to `p` unchanged.

    Args:
        p: Probabilities [.., N].
        ratio: Share of the row's maximum from which on a key is attended.
    """
    return cast(Tensor, _Mask.apply(p, ratio))  # type: ignore[no-untyped-call]
