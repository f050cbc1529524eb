"""Two binary linears with PReLU between: the MLP, and the spatial branch on the turned stream."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor, nn

from vitc.models.binary_linear import BinaryLinear, LinearOutput
from vitc.models.layers.named import Named
from vitc.models.layers.shift import Shift
from vitc.models.layers.signs import signs
from vitc.models.schemes import Scheme, find_scheme
from vitc.models.taps import tap

__all__ = ["BinaryMLP"]

_NORM_TERMS: Final = 8
_HIDDEN_TERMS: Final = 8
_FAR: Final = 2.0**-12
"""More than any rounding error, as a share of the magnitude that it is bounded by."""


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
        self.window = rules.activation_window
        self.fc1 = BinaryLinear(features, hidden, rules, weight_bits)
        self.moveact1 = Shift(1, rows, 1)
        self.prelu = nn.PReLU(rows)
        self.moveact2 = Shift(1, rows, 1)
        self.fc2 = BinaryLinear(hidden, features, rules, weight_bits)
        self.movefc1 = Shift(1, rows, 1)
        self.movefc2 = Shift(1, rows, 1)

    def sections(self, u: Tensor, magnitude: Callable[[], Tensor] | None = None) -> LinearOutput:
        """What `forward` returns, as a sum whose terms are known.

        Args:
            u: As in `forward`.
            magnitude: Of `u`, as in `vitc.models.taps.TapEvent`.
        """
        window = self.window if self.training else None
        moved = self.movefc1(u)
        bits = tap(
            f"{self.name}.input",
            signs(moved, window),
            "bits",
            moved,
            None if magnitude is None else lambda: magnitude() + self.movefc1.bias.abs(),
            _NORM_TERMS,
        )
        first = self.fc1.sections(bits)[0]
        pre = self.movefc2(self.moveact2(self.prelu(self.moveact1(first.value()))))
        hidden = tap(
            f"{self.name}.hidden",
            signs(pre, window),
            "bits",
            pre,
            lambda: self._hidden_magnitude(first),
            _HIDDEN_TERMS + first.terms,
        )
        return self.fc2.sections(hidden)[0]

    def _hidden_magnitude(self, first: LinearOutput) -> Tensor:
        before = first.magnitude() + self.moveact1.bias.abs()
        u = self.moveact1(first.value())
        # A rounding error before the PReLU leaves it times the slope on its side of zero; of both
        # slopes the larger one where it could carry u across.
        slope = self.prelu.weight.abs()[:, None].expand_as(u)
        certain = u.abs() > _FAR * before
        factor = torch.where(certain & (u >= 0), 1.0, slope)
        factor = torch.where(certain, factor, slope.clamp(min=1))
        return before * factor + self.moveact2.bias.abs() + self.movefc2.bias.abs()

    def forward(self, u: Tensor) -> Tensor:
        """Normalised [B, rows, features] to [B, rows, features], fp32."""
        return self.sections(u).value()
