"""Packed bits, and their conversion from and to plain bit arrays.

Three arrangements serve every kernel; the layouts of buffers (vitc.targets.layouts) are made of
them. Bits run along the contracted axis, LSB first, in elements of 8 or 32 bits; rows of bits are
padded with zeros to a multiple of 32.

- *rows*: `[R, W]`, one row after the other; the operand whose elements are broadcast.
- *lanes*: `[B, W, L]`, L rows side by side, element by element; the operand that fills a vector
  register.

- *slices*: `[B, K, L]` bits, for each contracted bit the bits of L rows side by side; the operand
  that fills a vector register with lanes of one bit.

An axis may be grouped: heads of width d are padded one by one to a multiple of 32, so that a head
starts on an element boundary.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = [
    "ROW_PADDING",
    "WORD",
    "Axis",
    "from_lanes",
    "from_rows",
    "round_up",
    "slice_places",
    "to_lanes",
    "to_rows",
    "to_slices",
]

WORD = 32
"""Bits to which a packed row is padded."""

ROW_PADDING = 8
"""Rows to which a matrix is padded: every row tile of a kernel divides it."""

Bits = npt.NDArray[np.uint8]


def round_up(value: int, multiple: int) -> int:
    """Return the smallest multiple of `multiple` that is at least `value`."""
    return -(-value // multiple) * multiple


@dataclass(frozen=True)
class Axis:
    """An axis of `groups * size` entries of which each group is padded to a multiple of `WORD`.

    Attributes:
        size: Entries of one group.
        groups: Number of groups.
    """

    size: int
    groups: int = 1

    @property
    def length(self) -> int:
        """Entries without padding."""
        return self.size * self.groups

    @property
    def padded_group(self) -> int:
        """Entries of one group with its padding."""
        return round_up(self.size, WORD)

    @property
    def padded(self) -> int:
        """Entries with padding."""
        return self.padded_group * self.groups

    def pad(
        self, array: npt.NDArray[np.generic], axis: int, fill: float = 0
    ) -> npt.NDArray[np.generic]:
        """Insert the padding of every group along `axis` of `array`, filled with `fill`."""
        moved = np.moveaxis(np.asarray(array), axis, -1)
        grouped = moved.reshape(*moved.shape[:-1], self.groups, self.size)
        result = np.full((*grouped.shape[:-1], self.padded_group), fill, array.dtype)
        result[..., : self.size] = grouped
        return np.moveaxis(result.reshape(*moved.shape[:-1], self.padded), -1, axis)

    def unpad(self, array: npt.NDArray[np.generic], axis: int) -> npt.NDArray[np.generic]:
        """Drop the padding of every group along `axis` of `array`."""
        moved = np.moveaxis(array, axis, -1)
        grouped = moved.reshape(*moved.shape[:-1], self.groups, self.padded_group)
        plain = grouped[..., : self.size].reshape(*moved.shape[:-1], self.length)
        return np.moveaxis(plain, -1, axis)


def to_rows(bits: Bits, axis: Axis) -> Bits:
    """Pack bits `[R, K]` into the rows layout, as bytes `[R, axis.padded / 8]`."""
    padded = axis.pad(bits, 1).astype(np.uint8)
    return np.packbits(padded, axis=1, bitorder="little")


def from_rows(data: Bits, rows: int, axis: Axis) -> Bits:
    """Undo `to_rows` on the first `rows` rows of a buffer of bytes; returns bits `[rows, K]`."""
    stride = axis.padded // 8
    packed = data[: rows * stride].reshape(rows, stride)
    return axis.unpad(np.unpackbits(packed, axis=1, bitorder="little"), 1).astype(np.uint8)


def to_lanes(bits: Bits, axis: Axis, lanes: int, element_bits: int) -> Bits:
    """Pack bits `[R, K]` into the lanes layout; R is padded with zero rows to whole blocks.

    Returns:
        Bytes, flat: `[R / lanes, axis.padded / element_bits, lanes]` elements of `element_bits`.
    """
    packed = to_rows(bits, axis)
    blocks = round_up(len(packed), lanes) // lanes
    full = np.zeros((blocks * lanes, packed.shape[1]), np.uint8)
    full[: len(packed)] = packed
    size = element_bits // 8
    elements = full.reshape(blocks, lanes, -1, size).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(elements).reshape(-1)


def from_lanes(data: Bits, rows: int, axis: Axis, lanes: int, element_bits: int) -> Bits:
    """Undo `to_lanes` on a buffer of bytes; returns bits `[rows, K]`."""
    blocks = round_up(rows, lanes) // lanes
    size = element_bits // 8
    used = blocks * lanes * axis.padded // 8
    elements = data[:used].reshape(blocks, -1, lanes, size).transpose(0, 2, 1, 3)
    return from_rows(np.ascontiguousarray(elements).reshape(-1), rows, axis)


def slice_places(lanes: int, vector: int = 0) -> npt.NDArray[np.int64]:
    """The bit of each lane of a block of slices.

    Slices are transposed to sums 8 x 8 bits at a time, which gives eight vectors of bytes; of each,
    the even bytes follow one another and then the odd ones.

    Args:
        lanes: Lanes of the block, a multiple of 16.
        vector: Lanes that are transposed by themselves, whose bytes follow one another all; 0 where
            the block is one vector.
    """
    if vector:
        number, lane = np.divmod(np.arange(lanes), vector)
        filled = np.minimum(vector, lanes - number * vector)
        plane, byte = np.divmod(lane, filled // 8)
        return 8 * (number * (vector // 8) + byte) + plane
    plane, inside = np.divmod(np.arange(lanes), lanes // 8)
    odd, pair = np.divmod(inside, lanes // 16)
    places: npt.NDArray[np.int64] = 8 * (2 * pair + odd) + plane
    return places


def to_slices(bits: Bits, blocks: int, lanes: int, vector: int = 0) -> Bits:
    """Pack bits `[R, K]` into the slices layout; R is padded with zero rows to whole blocks.

    Args:
        bits: Zeros and ones.
        blocks: Blocks.
        lanes: Lanes of each, a multiple of 16.
        vector: As for `slice_places`.

    Returns:
        Bytes, flat: `[blocks, K, lanes / 8]`.
    """
    full = np.zeros((blocks * lanes, bits.shape[1]), np.uint8)
    full[: len(bits)] = bits
    placed = np.empty((blocks, bits.shape[1], lanes), np.uint8)
    placed[..., slice_places(lanes, vector)] = full.reshape(blocks, lanes, -1).transpose(0, 2, 1)
    return np.packbits(placed, axis=-1, bitorder="little").reshape(-1)
