"""Two binary linears with PReLU between: the MLP, and the spatial branch on the turned stream."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vitc.models.binary_linear import BinaryLinear
from vitc.models.layers.groups import Grouping
from vitc.models.layers.named import Named
from vitc.models.layers.shift import Shift
from vitc.models.schemes import Scheme, find_scheme
from vitc.models.taps import tap

__all__ = ["BinaryMLP", "RowPReLU"]


class RowPReLU(nn.PReLU):
    """PReLU whose slopes belong to the axis before the last, however many stand before that."""

    def forward(self, x: Tensor) -> Tensor:
        """[.., rows, features] to the same shape."""
        active: Tensor = torch.ops.aten._prelu_kernel(x, self.weight.unsqueeze(-1))
        return active


class BinaryMLP(Named):
    """``fc2(sgn(prelu(fc1(sgn(u + movefc1)) + moveact1) + moveact2 + movefc2))``.

    On [B, tokens, channels] it is the MLP; on [B, channels, tokens] it mixes tokens, which is the
    spatial branch (SI-BiViT, section 3).

    Args:
        features: K, length of the contracted last axis.
        hidden: Hidden features.
        rows: Length of the axis before it, which shifts and slopes belong to.
        scheme: Binarization scheme, or its name.
        weight_bits: 1 or 32.
        name: First part of the tap names; empty for the name of the module.
    """

    def __init__(
        self,
        features: int,
        hidden: int,
        rows: int,
        *,
        scheme: Scheme | str = "bibert",
        weight_bits: int = 1,
        name: str = "",
    ) -> None:
        super().__init__(name)
        rules = find_scheme(scheme)
        self.fc1 = BinaryLinear(features, hidden, rules, weight_bits)
        self.moveact1 = Shift(1, rows, 1)
        self.prelu = RowPReLU(rows)
        self.moveact2 = Shift(1, rows, 1)
        # What a move would do, the bias of fc1 does already.
        self.fc2 = BinaryLinear(hidden, features, rules, weight_bits, moved=False)
        self.movefc1 = Shift(1, rows, 1)
        self.movefc2 = Shift(1, rows, 1)

    def forward(self, u: Tensor, groups: Grouping | None = None) -> Tensor:
        """Mix features.

        Args:
            u: Normalised [B, rows, features].
            groups: Of the features; then `u` is [B, rows, tokens], and each group is mixed alone.

        Returns:
            fp32 [B, rows, features], or [B, groups, rows, features].
        """
        bits = self.fc1.binarize(self.movefc1(u), groups)
        if groups is not None:
            bits = groups.split(bits.transpose(1, 2)).transpose(2, 3)
        bits = tap(f"{self.name}.input", bits, "bits")
        pre = self.movefc2(self.moveact2(self.prelu(self.moveact1(self.fc1(bits)))))
        out: Tensor = self.fc2(tap(f"{self.name}.hidden", self.fc2.binarize(pre), "bits"))
        return out
