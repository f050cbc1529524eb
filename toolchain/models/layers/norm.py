"""Norms of the residual stream: batch norm of tokens or channels, layer norm of channels."""

from __future__ import annotations

from torch import Tensor, nn

from vitc.models.taps import tap

__all__ = ["AxisNorm", "ChannelNorm", "stream_norm"]


class AxisNorm(nn.BatchNorm1d):
    """Batch norm whose statistics belong to axis 1: tokens of [B, N, C], channels of [B, C, N]."""


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
