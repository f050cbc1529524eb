"""Signs of packed rows as bytes in tiles: the left operand of AMX products."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from vitc.targets.layouts.layout import Array, Bytes, Layout
from vitc.targets.packing import WORD, Axis, round_up

__all__ = ["TILE_BYTES", "TILE_DEPTH", "TILE_ROWS", "Signs", "depth_tiles"]

TILE_ROWS = 16
TILE_DEPTH = 64
"""Contracted bytes of a tile."""
TILE_BYTES = TILE_ROWS * TILE_DEPTH


def depth_tiles(words: int) -> int:
    """Tiles along a contracted axis of so many 32-bit words."""
    return round_up(words * WORD, TILE_DEPTH) // TILE_DEPTH


@dataclass(frozen=True)
class Signs(Layout):
    """Bits [1, rows, axis.length] as +1 and -1, and 0 where the axis is padded.

    Tiles of 16 rows x 64 bytes, one after the other along a row of tiles, so that a product reads
    memory in order.

    Attributes:
        rows: Vectors.
        axis: The contracted axis, of bytes.
    """

    kind: ClassVar[str] = "signs"

    rows: int
    axis: Axis

    @property
    def shape(self) -> tuple[int, ...]:
        """One group, vectors, bits."""
        return 1, self.rows, self.axis.length

    @property
    def size(self) -> int:
        """Bytes of whole tiles."""
        return round_up(self.rows, TILE_ROWS) // TILE_ROWS * self._depth * TILE_BYTES

    @property
    def _depth(self) -> int:
        return depth_tiles(self.axis.padded // WORD)

    def encode(self, array: Array) -> Bytes:
        """Make signs of bits."""
        signs = self.axis.pad(np.where(array[0], 1, -1).astype(np.int8), 1)
        full = np.zeros((round_up(self.rows, TILE_ROWS), self._depth * TILE_DEPTH), np.int8)
        full[: self.rows, : self.axis.padded] = signs
        tiles = full.reshape(-1, TILE_ROWS, self._depth, TILE_DEPTH).transpose(0, 2, 1, 3)
        return np.ascontiguousarray(tiles).reshape(-1).view(np.uint8)

    def decode(self, data: Bytes) -> Array:
        """Make bits of signs."""
        tiles = data[: self.size].view(np.int8).reshape(-1, self._depth, TILE_ROWS, TILE_DEPTH)
        signs = tiles.transpose(0, 2, 1, 3).reshape(-1, self._depth * TILE_DEPTH)
        used: Array = self.axis.unpad(signs[: self.rows, : self.axis.padded], 1)
        bits: Bytes = (used > 0).astype(np.uint8)
        return bits[None]
