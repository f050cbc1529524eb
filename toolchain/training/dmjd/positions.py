"""Fixed positions: sines and cosines of a token's column and row."""

from __future__ import annotations

import torch
from torch import Tensor

from vitc.errors import VitcError

__all__ = ["sine_positions"]


def sine_positions(width: int, rows: int, columns: int) -> Tensor:
    """Positions of a map of tokens, row-major.

    The first half of the channels encodes the column, the second the row, each as the sines and
    then the cosines of ``place * 10000 ** (-i / (width / 4))``.

    Returns:
        fp32 [rows * columns, width], rounded from float64.

    Raises:
        VitcError: If the width is not a multiple of four.
    """
    if width % 4:
        raise VitcError(
            f"Fixed positions of {width} channels do not exist.",
            "The width must be a multiple of 4.",
        )
    rates = 10000.0 ** (-torch.arange(width // 4, dtype=torch.float64) / (width / 4))

    def encoded(count: int) -> Tensor:
        angles = torch.arange(count, dtype=torch.float64)[:, None] * rates
        return torch.cat((angles.sin(), angles.cos()), dim=1)

    across = encoded(columns).expand(rows, -1, -1)
    down = encoded(rows)[:, None].expand(-1, columns, -1)
    return torch.cat((across, down), dim=-1).flatten(0, 1).to(torch.float32)
