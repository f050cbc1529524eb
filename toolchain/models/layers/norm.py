"""Norms of the residual stream: batch norm of tokens or channels, layer norm of channels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vitc.models.processes import counted, processes, summed
from vitc.models.taps import tap

__all__ = ["AxisNorm", "ChannelNorm", "stream_norm"]


class AxisNorm(nn.BatchNorm1d):
    """Batch norm whose statistics belong to axis 1: tokens of [B, N, C], channels of [B, C, N].

    Where several processes share a batch, its statistics are those of the whole batch.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x` [B, features, ..]."""
        if not self.training or processes() == 1:
            return super().forward(x)
        axes = (0, *range(2, x.ndim))
        count = counted(x.numel() // x.shape[1], x)
        shape = (1, -1, *(1,) * (x.ndim - 2))
        mean = summed(x.sum(axes)) / count
        centred = x - mean.view(shape)
        variance = summed(centred.square().sum(axes)) / count
        self._follow(mean.detach(), variance.detach() * count / max(count - 1, 1))
        normal = centred * (variance + self.eps).rsqrt().view(shape)
        if not self.affine:
            return normal
        return normal * self.weight.view(shape) + self.bias.view(shape)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        """Let the running statistics follow those of a batch."""
        assert self.running_mean is not None  # noqa: S101 - of every norm built here
        assert self.running_var is not None  # noqa: S101
        assert self.num_batches_tracked is not None  # noqa: S101
        assert self.momentum is not None  # noqa: S101
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)


class ChannelNorm(nn.LayerNorm):
    """Layer norm over channels, whose result is tapped: it is binarized, or begins a float layer.

    Args:
        width: C.
        eps: Added to the variance.
        name: Of the tap; empty for none.
    """

    def __init__(self, width: int, eps: float, name: str = "") -> None:
        super().__init__(width, eps=eps)
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x` [.., C]."""
        normal = super().forward(x)
        return tap(self.name, normal) if self.name else normal


def stream_norm(kind: str, tokens: int, width: int, eps: float, name: str = "") -> nn.Module:
    """A norm of the stream [B, tokens, width], of a kind of `vitc.models.config.NORMS`.

    A layer norm taps what it makes as `name`.
    """
    return AxisNorm(tokens, eps=eps) if kind == "batch" else ChannelNorm(width, eps, name)
