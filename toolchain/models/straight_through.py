"""Straight-through estimators: exact discrete values forward, a surrogate gradient backward."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor

from vitc.models.processes import counted

__all__ = ["Window", "attention_mask", "quantized", "scaled", "sign", "signs"]


@dataclass(frozen=True)
class Window:
    """Where a gradient passes: ``|x| < limit``.

    Attributes:
        limit: Positive.
        closed: Whether it also passes where ``|x| == limit``.
    """

    limit: float = 1.0
    closed: bool = False

    def beyond(self, dtype: torch.dtype) -> float:
        """The least absolute value at which nothing passes any more."""
        return _after(self.limit, dtype) if self.closed else self.limit


@cache
def _after(limit: float, dtype: torch.dtype) -> float:
    """The next larger number."""
    ends = torch.tensor((limit, math.inf), dtype=dtype)
    return torch.nextafter(ends[0], ends[1]).item()


class _Windowed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor, window: Window) -> Tensor:
        ctx.window = window
        ctx.save_for_backward(x)
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        # One pass over memory, where a comparison, its floats and their product are three.
        end = ctx.window.beyond(x.dtype)
        return torch.ops.aten.hardtanh_backward(grads[0], x, -end, end), None, None


class _Quantized(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor, slope: Tensor | None) -> Tensor:  # noqa: ARG004
        ctx.sloped = slope is not None
        ctx.save_for_backward(*(() if slope is None else (slope,)))
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return (grads[0] * ctx.saved_tensors[0] if ctx.sloped else grads[0]), None, None


class _Scaled(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        alpha: Tensor,  # noqa: ARG004
        value: Tensor,
        slope: Tensor | None,
        share: Tensor,
    ) -> Tensor:
        ctx.sloped = slope is not None
        ctx.count = counted(x.numel(), x)
        ctx.save_for_backward(share, *(() if slope is None else (slope,)))
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        share, *slope = ctx.saved_tensors
        of_x = grads[0] * slope[0] if ctx.sloped else grads[0]
        of_alpha = (grads[0] * share).sum() / math.sqrt(ctx.count)
        return of_x, of_alpha, None, None, None


class _Mask(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, p: Tensor, ratio: float) -> Tensor:  # noqa: ARG004
        return (p >= ratio * p.amax(dim=-1, keepdim=True)).to(p.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:  # noqa: ARG004
        return grads[0], None


def quantized(x: Tensor, value: Tensor, slope: Tensor | Window | None = None) -> Tensor:
    """`value` forward; backward its gradient goes to `x`.

    Args:
        x: Float tensor of any shape.
        value: What stands for it, of the same shape; no gradient goes this way.
        slope: What the gradient is multiplied by, or where it passes; None for everywhere.
    """
    if isinstance(slope, Window):
        return cast(Tensor, _Windowed.apply(x, value.detach(), slope))  # type: ignore[no-untyped-call]
    return cast(Tensor, _Quantized.apply(x, value.detach(), slope))  # type: ignore[no-untyped-call]


@torch.no_grad()
def signs(x: Tensor, scale: Tensor | float = 1.0) -> Tensor:
    """``scale * sgn(x)`` with sgn(0) = +1, without gradients.

    Args:
        x: Float tensor of any shape.
        scale: Not negative, a number or what broadcasts to `x`.
    """
    # -0 has a sign bit as well, and loses it here.
    return torch.copysign(torch.as_tensor(scale, dtype=x.dtype), x + 0.0)


def sign(x: Tensor, slope: Tensor | Window | None = None, scale: Tensor | float = 1.0) -> Tensor:
    """``scale * sgn(x)`` with sgn(0) = +1.

    Args:
        x: Float tensor of any shape.
        slope: As in `quantized`; the gradient is that of the scaled sign.
        scale: A constant here, not negative.
    """
    return quantized(x, signs(x, scale), slope)


def scaled(x: Tensor, alpha: Tensor, value: Tensor, slope: Tensor | None, share: Tensor) -> Tensor:
    """`value` forward; backward its gradient goes to `x`, and to a scale that is learned.

    Args:
        x: Float tensor of n entries.
        alpha: The scale, of no axes.
        value: What stands for `x`, of the same shape.
        slope: As in `quantized`.
        share: Of each entry's gradient that goes to `alpha`, where their sum is divided by the root
            of n (LSQ; BiT, elastic binarization), n that of all processes.
    """
    return cast(Tensor, _Scaled.apply(x, alpha, value, slope, share))  # type: ignore[no-untyped-call]


def attention_mask(p: Tensor, ratio: float) -> Tensor:
    """1 where p >= ratio * (largest p of the row), else 0; the gradient goes to `p` unchanged.

    Args:
        p: Probabilities [.., N].
        ratio: Share of the row's maximum from which on a key is attended.
    """
    return cast(Tensor, _Mask.apply(p, ratio))  # type: ignore[no-untyped-call]
