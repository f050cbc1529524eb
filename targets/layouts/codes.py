"""Rows of codes: floats that were rounded to bytes, which a product of integers reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from vitc.targets.layouts.layout import Array, Bytes, Layout, filled
from vitc.targets.packing import round_up

__all__ = ["Codes"]

_LINE = 64


@dataclass(frozen=True)
class Codes(Layout):
    """uint8 [rows, columns], without gaps: what lies side by side in a window is read in one run.

    Attributes:
        rows: Rows.
        columns: Channels.
    """

    kind: ClassVar[str] = "codes"

    rows: int
    columns: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows, channels."""
        return self.rows, self.columns

    @property
    def size(self) -> int:
        """Bytes, in whole cache lines."""
        return round_up(self.rows * self.columns, _LINE)

    def encode(self, array: Array) -> Bytes:
        """Copy rows."""
        return filled(array.astype(np.uint8), self.size)

    def decode(self, data: Bytes) -> Array:
        """Copy rows."""
        return data[: self.rows * self.columns].reshape(self.shape).copy()
