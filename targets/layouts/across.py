"""A bit of every vector side by side: the spatial branch where it goes by bit slices.

The vectors are columns of a matrix whose rows are contracted, and the matrix lies as it is: each of
its rows fills vectors of lanes of one bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vitc.targets.layouts.layout import Array, Bytes, Layout, filled
from vitc.targets.packing import ROW_PADDING, Axis, from_rows, round_up, to_rows

__all__ = ["Across"]


@dataclass(frozen=True)
class Across(Layout):
    """Bits [1, vectors, length], a row of `vectors` bits for each of `length`.

    Attributes:
        vectors: Vectors, which are the lanes.
        length: Bits of a vector.
    """

    kind: ClassVar[str] = "across"

    vectors: int
    length: int

    @property
    def shape(self) -> tuple[int, ...]:
        """One group, vectors, bits."""
        return 1, self.vectors, self.length

    @property
    def size(self) -> int:
        """Bytes; as many rows as row tiles write."""
        return round_up(self.length, ROW_PADDING) * Axis(self.vectors).padded // 8

    def encode(self, array: Array) -> Bytes:
        """Pack bits."""
        return filled(to_rows(array[0].T, Axis(self.vectors)), self.size)

    def decode(self, data: Bytes) -> Array:
        """Unpack bits."""
        return from_rows(data, self.length, Axis(self.vectors)).T[None]
