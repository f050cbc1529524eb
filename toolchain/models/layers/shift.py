"""A learned shift before a sign."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["Shift"]


class Shift(nn.Module):
    """A learned shift, broadcast over the axes of length 1 in `shape` (SI-BiViT, section 3).

    Args:
        shape: Of its values, such as ``1, tokens, 1`` for one a token.
    """

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(shape))

    def forward(self, x: Tensor) -> Tensor:
        """Add the shift to `x` [B, ..]."""
        return x + self.bias
