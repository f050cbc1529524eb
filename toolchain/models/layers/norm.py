"""Batch norm of tokens or of channels."""

from __future__ import annotations

from torch import nn

__all__ = ["AxisNorm"]


class AxisNorm(nn.BatchNorm1d):
    """Batch norm whose statistics belong to axis 1: tokens of [B, N, C], channels of [B, C, N]."""
