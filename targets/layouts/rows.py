"""Packed vectors one after the other: the operand whose elements are broadcast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vitc.targets.layouts.layout import Array, Bytes, Layout, filled
from vitc.targets.packing import ROW_PADDING, Axis, from_rows, round_up, to_rows

__all__ = ["Rows"]


@dataclass(frozen=True)
class Rows(Layout):
    """Bits [groups, rows, axis.length]: vectors of `axis.padded` bits, no gap between groups.

    Attributes:
        rows: Vectors of a group.
        axis: The packed axis; each of its groups (heads) begins a word.
        groups: Windows.
    """

    kind: ClassVar[str] = "rows"

    rows: int
    axis: Axis
    groups: int = 1

    @property
    def shape(self) -> tuple[int, ...]:
        """Groups, vectors, bits."""
        return self.groups, self.rows, self.axis.length

    @property
    def size(self) -> int:
        """Bytes; behind the last vector are as many as make whole row tiles of the last group."""
        last = (self.groups - 1) * self.rows + round_up(self.rows, ROW_PADDING)
        return round_up(last, ROW_PADDING) * self.axis.padded // 8

    def encode(self, array: Array) -> Bytes:
        """Pack bits."""
        return filled(to_rows(array.reshape(-1, self.axis.length), self.axis), self.size)

    def decode(self, data: Bytes) -> Array:
        """Unpack bits."""
        return from_rows(data, self.groups * self.rows, self.axis).reshape(self.shape)
