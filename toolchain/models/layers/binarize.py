"""Signs of a float tensor, as a layer."""

from __future__ import annotations

from torch import Tensor

from vitc.models import ops
from vitc.models.layers.named import Named
from vitc.models.straight_through import Window, sign
from vitc.models.taps import tap

__all__ = ["Binarize"]


class Binarize(Named):
    """``sgn(x)``, with ``sgn(0) = +1``: what every binary layer reads.

    Args:
        window: In training the gradient passes where |x| < window (SI-BiViT and BiBERT: 1).
        name: Of the tap; empty for the name of the module.
    """

    def __init__(self, window: float = 1.0, name: str = "") -> None:
        super().__init__(name)
        self.window = window

    def forward(self, x: Tensor) -> Tensor:
        """Signs of `x` [B, ..]: bits (uint8, 1 for +1) in eval mode, floats in training."""
        if self.training:
            return tap(self.name, sign(x, Window(self.window)), "bits")
        return tap(self.name, ops.binarize(x), "bits")
