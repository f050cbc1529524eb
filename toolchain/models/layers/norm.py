"""Batch norm of tokens or of channels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vitc.errors import VitcError
from vitc.models.taps import UNDERFLOW

__all__ = ["AxisNorm"]


class AxisNorm(nn.BatchNorm1d):
    """Batch norm whose statistics belong to axis 1: tokens of [B, N, C], channels of [B, C, N]."""

    def magnitude(self, x: Tensor) -> Tensor:
        """Sum of the absolute values of the terms of ``g * (x - mean) / std + b``.

        A stream value below `UNDERFLOW` counts as that: hardware may have flushed it.
        """
        if self.running_mean is None or self.running_var is None:
            raise VitcError("A batch norm without running statistics has no inference form.")
        gain = self.weight.abs() * torch.rsqrt(self.running_var + self.eps)
        terms = x.abs() + self.running_mean.abs()[:, None] + UNDERFLOW
        return terms * gain[:, None] + self.bias.abs()[:, None]
