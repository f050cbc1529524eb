"""Packed vectors side by side, heads padded to words: values of attention, and the spatial branch.

The vectors are columns of a matrix whose rows are contracted: channels that are packed along the
tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from vitc.targets.layouts.layout import Array, Bytes, Layout
from vitc.targets.packing import Axis, from_lanes, round_up, to_lanes

__all__ = ["Columns"]


@dataclass(frozen=True)
class Columns(Layout):
    """Bits [groups, vectors.length, length]: each group in lane blocks of its own.

    Attributes:
        vectors: Vectors of a group, which fill the lanes; each of its groups (heads) is padded to a
            word of vectors.
        length: Bits of a vector.
        lanes: Lanes of a block, as the instruction set has them.
        element_bits: Bits of a lane's element.
        groups: Windows.
    """

    kind: ClassVar[str] = "columns"

    vectors: Axis
    length: int
    lanes: int
    element_bits: int
    groups: int = 1

    @property
    def shape(self) -> tuple[int, ...]:
        """Groups, vectors, bits."""
        return self.groups, self.vectors.length, self.length

    @property
    def size(self) -> int:
        """Bytes of whole lane blocks."""
        return self.groups * self._group

    @property
    def _group(self) -> int:
        return round_up(self.vectors.padded, self.lanes) * Axis(self.length).padded // 8

    def encode(self, array: Array) -> Bytes:
        """Pack bits."""
        axis = Axis(self.length)
        padded = [self.vectors.pad(bits, 0).astype(np.uint8) for bits in array]
        return np.concatenate([to_lanes(b, axis, self.lanes, self.element_bits) for b in padded])

    def decode(self, data: Bytes) -> Array:
        """Unpack bits."""
        axis, count = Axis(self.length), self.vectors.padded
        groups = data[: self.size].reshape(self.groups, self._group)
        bits = [from_lanes(g, count, axis, self.lanes, self.element_bits) for g in groups]
        return np.stack([self.vectors.unpad(b, 0) for b in bits])
