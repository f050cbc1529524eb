"""Rows of fp32 channels: the residual stream, and every float that a step of vitc reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from vitc.targets.layouts.layout import Array, Bytes, Layout
from vitc.targets.packing import ROW_PADDING, round_up

__all__ = ["Floats"]


@dataclass(frozen=True)
class Floats(Layout):
    """fp32 [rows, columns].

    Attributes:
        rows: Rows.
        columns: Channels.
        stride: Floats from one row to the next.
    """

    kind: ClassVar[str] = "floats"

    rows: int
    columns: int
    stride: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows, channels."""
        return self.rows, self.columns

    @property
    def size(self) -> int:
        """Bytes; behind the last row are as many as make whole row tiles."""
        return round_up(self.rows, ROW_PADDING) * self.stride * 4

    def encode(self, array: Array) -> Bytes:
        """Copy rows to their places."""
        rows = np.zeros((self.size // 4 // self.stride, self.stride), np.float32)
        rows[: self.rows, : self.columns] = array
        return rows.reshape(-1).view(np.uint8)

    def decode(self, data: Bytes) -> Array:
        """Copy rows from their places."""
        values = data[: self.size].view(np.float32).reshape(-1, self.stride)
        return values[: self.rows, : self.columns].copy()
