"""Packed vectors side by side, group by group: keys of attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from vitc.targets.layouts.layout import Array, Bytes, Layout
from vitc.targets.packing import Axis, from_lanes, round_up, to_lanes

__all__ = ["Lanes"]


@dataclass(frozen=True)
class Lanes(Layout):
    """Bits [groups, vectors, length]: each group in lane blocks of its own.

    Attributes:
        vectors: Vectors of a group, which fill the lanes.
        length: Bits of a vector.
        lanes: Lanes of a block, as the instruction set has them.
        element_bits: Bits of a lane's element.
        groups: Windows times heads.
    """

    kind: ClassVar[str] = "lanes"

    vectors: int
    length: int
    lanes: int
    element_bits: int
    groups: int = 1

    @property
    def shape(self) -> tuple[int, ...]:
        """Groups, vectors, bits."""
        return self.groups, self.vectors, self.length

    @property
    def size(self) -> int:
        """Bytes of whole lane blocks."""
        return self.groups * self._group

    @property
    def _group(self) -> int:
        return round_up(self.vectors, self.lanes) * Axis(self.length).padded // 8

    def encode(self, array: Array) -> Bytes:
        """Pack bits."""
        axis = Axis(self.length)
        return np.concatenate(
            [to_lanes(bits, axis, self.lanes, self.element_bits) for bits in array]
        )

    def decode(self, data: Bytes) -> Array:
        """Unpack bits."""
        axis = Axis(self.length)
        groups = data[: self.size].reshape(self.groups, self._group)
        return np.stack(
            [from_lanes(g, self.vectors, axis, self.lanes, self.element_bits) for g in groups]
        )
