"""Codes: learnt rows that stand behind the tokens at an encoder's input."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["Codes"]


class Codes(nn.Module):
    """Learnt rows behind the tokens, the same for every example, without positions.

    Inflate and Shrink, section 3.2. They begin as class tokens do.

    Args:
        count: k.
        width: C, channels of a token.
    """

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(1, count, width))
        nn.init.trunc_normal_(self.table, std=0.02)

    def forward(self, rows: Tensor) -> Tensor:
        """Rows [B, N, C] to rows [B, N + k, C]."""
        return torch.cat((rows, self.table.expand(rows.shape[0], -1, -1)), dim=1)
