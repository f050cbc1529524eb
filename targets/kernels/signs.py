"""Packed rows to signs of 8 bits, the left operand of AMX products.

Instruction set: AVX-512BW. Tile: one row. Layouts: rows layout in; out tiles of 16 rows x 64 bytes,
one after the other along a row of tiles, so that a product reads memory in order.

64 bits become a mask register that chooses 64 bytes at once: +1 for a set bit, -1 for a clear one,
and 0 where the bit is padding. So padding adds nothing to a product, whatever the other operand
holds there, and the sum is the dialect's I = K - 2 popcount.
"""

from __future__ import annotations

from itertools import groupby
from typing import Any

import numpy as np
from tvm.script.ir_builder import tirx as T

from vitc.targets.kernels.emitter import Emitter, Kernel
from vitc.targets.layouts.signs import TILE_BYTES, TILE_DEPTH, TILE_ROWS, depth_tiles
from vitc.targets.packing import WORD, Axis

__all__ = ["signs_kernel"]


def _used(axis: Axis) -> list[int]:
    """For every 64 bits of a row, a mask of those that are no padding."""
    used = axis.pad(np.ones(axis.length, np.uint8), 0).astype(np.uint8)
    whole = np.concatenate([used, np.zeros(-len(used) % TILE_DEPTH, np.uint8)])
    return [int(word) for word in np.packbits(whole, bitorder="little").view("<u8")]


def signs_kernel(symbol: str, rows: int, axis: Axis) -> Kernel:
    """Build the expansion of `rows` packed rows into signs.

    Arguments of the C function: rows operand, output, begin, end.

    Args:
        symbol: Name of the C function.
        rows: Rows; of the last tile, only these are written.
        axis: The packed axis.

    Returns:
        The kernel. Its tasks are rows.
    """
    emitter = Emitter(symbol)
    words = axis.padded // WORD
    tiles = depth_tiles(words)
    with emitter.open() as e:
        packed, out = e.pointers(packed="uint32", out="int8")
        one, minus_one = (e.constant("int8", sign, TILE_DEPTH) for sign in (1, -1))

        def expand(row: Any, tile: Any, used: int, *, half: bool) -> None:
            low = e.cast("uint64", packed[row * words + 2 * tile])
            bits = low
            if not half:
                high = e.cast("uint64", packed[row * words + 2 * tile + 1])
                bits = T.bitwise_or(low, T.shift_left(high, T.uint64(WORD)))
            signs = T.Select(_as_mask(bits), one, minus_one)
            if used != (1 << TILE_DEPTH) - 1:
                signs = T.Select(_as_mask(T.uint64(used)), signs, e.constant("int8", 0, TILE_DEPTH))
            place = T.floordiv(row, TILE_ROWS) * (tiles * TILE_BYTES) + tile * TILE_BYTES
            index = place + T.floormod(row, TILE_ROWS) * TILE_DEPTH
            e.store(out, index, signs, TILE_DEPTH)

        with e.loop(e.begin, e.end) as row:
            kinds = [(used, 2 * tile + 1 == words) for tile, used in enumerate(_used(axis))]
            first = 0
            for (used, half), run in groupby(kinds):
                count = len(list(run))
                with e.loop(first, first + count) as tile:
                    expand(row, tile, used, half=half)
                first += count
    return emitter.kernel(rows, signs=rows * tiles * TILE_DEPTH)


def _as_mask(bits: Any) -> Any:
    """64 bits as a vector of booleans."""
    return T.call_intrin(f"boolx{TILE_DEPTH}", "tirx.reinterpret", bits)
