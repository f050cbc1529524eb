"""Convolutions of necks and heads, each with a batch norm that folds into it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitc.models.layers.norm import AxisNorm
from vitc.models.taps import tap

__all__ = ["Finer", "NormedConvolution"]


class NormedConvolution(nn.Module):
    """``BN(Conv(x))``; in eval mode one convolution whose weights have the norm in them.

    Args:
        inputs: Channels.
        outputs: Channels.
        side: Of the window; 3 with a border of zeros, else none.
        stride: Of the window.
        by_channel: Whether each channel has a window of its own (depthwise).
    """

    def __init__(
        self, inputs: int, outputs: int, side: int = 1, stride: int = 1, *, by_channel: bool = False
    ) -> None:
        super().__init__()
        self.stride = stride
        self.padding = 1 if side == 3 else 0
        self.groups = inputs if by_channel else 1
        self.weight = nn.Parameter(torch.empty(outputs, inputs // self.groups, side, side))
        nn.init.kaiming_normal_(self.weight, mode="fan_out" if by_channel else "fan_in")
        self.norm = AxisNorm(outputs, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [B, C, H, W] to [B, C', H', W']."""
        norm = self.norm
        if self.training:
            made = F.conv2d(x, self.weight, None, self.stride, self.padding, 1, self.groups)
            return torch.unflatten(norm(made.flatten(2)), 2, made.shape[2:])
        assert norm.running_var is not None and norm.running_mean is not None  # noqa: S101, PT018
        gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        weight = self.weight * gain[:, None, None, None]
        bias = norm.bias - norm.running_mean * gain
        return F.conv2d(x, weight, bias, self.stride, self.padding, 1, self.groups)


class Finer(nn.Module):
    """``BN(ConvTranspose(x))`` with a window of R x R and stride R, without overlap.

    That is a 1 x 1 convolution to R R C' channels whose results lie beside each other, so it needs
    no operator of its own.

    Args:
        inputs: C.
        outputs: C'.
        ratio: R.
        name: Of the tap of what is laid out.
    """

    def __init__(self, inputs: int, outputs: int, ratio: int, name: str) -> None:
        super().__init__()
        self.ratio = ratio
        self.outputs = outputs
        self.name = name
        self.convolution = NormedConvolution(inputs, ratio**2 * outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [B, C, H, W] to [B, C', R H, R W]."""
        made = self.convolution(x).permute(0, 2, 3, 1)
        made = tap(self.name, made)
        cut = torch.unflatten(made, 3, (self.ratio, self.ratio, self.outputs))
        return cut.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)
