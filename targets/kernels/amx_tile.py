"""The AMX tile product: signs of rows against lanes that are expanded panel by panel.

Instruction set: AMX-TILE, AMX-INT8, AVX-512. Tile: 32 rows x 32 lanes in four tile registers, of
which two row tiles and two lane tiles feed four products per 64 bits of depth. Layouts: signs
(vitc.targets.layouts.signs) for the row operand, `lanes` (vitc.targets.packing) for the other,
whose weights so stay 1 bit in the file and in memory.

A panel is all the depth of 32 lanes. Its bits are expanded to signs once, into a buffer on the
stack that stays in the first-level cache while all rows pass by. One 32-bit element of 16 lanes
makes eight rows of a tile: four of its bits choose four bytes of a table in a register (a
permutation of 32-bit lanes reads the low four bits of its index).

The tile unit takes 16 cycles a product and works beside the vector unit. So the epilogue of a block
is emitted between the products of the next one, and costs no time of its own as long as it is
shorter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from tvm.script.ir_builder import tirx as T

from vitc.targets.kernels.emitter import HALF, Emitter
from vitc.targets.layouts.signs import TILE_BYTES, TILE_DEPTH, TILE_ROWS, depth_tiles
from vitc.targets.packing import WORD

__all__ = ["BLOCK", "AmxProduct", "BlockEpilogue", "configure", "fits_panel", "product_work"]

BLOCK = 2
"""Tiles of a block, along rows and along lanes."""

MAX_PANEL = 48 << 10
"""Bytes of a panel: threads of musl have a stack of 128 KiB, and a first-level cache has 48 KiB."""

_SUMS = TILE_ROWS * HALF
_ROW = 4
_LANE = _ROW + BLOCK
_REGISTERS = 8
_CONFIGURATION = 64
_COLUMN_BYTES = 16
_ROW_COUNTS = 48
_BITS_OF_ROW = 4
_ROWS_OF_WORD = WORD // _BITS_OF_ROW
_WORD_BYTES = _ROWS_OF_WORD * TILE_DEPTH


class BlockEpilogue(Protocol):
    """What becomes of the sums of a block."""

    def begin(self) -> None:
        """Emit what comes before the first row."""

    def finish(self, block: Any, row: int, tile: int, value: Any) -> None:
        """Emit the epilogue of 16 sums, fp32: of a row of the block, and a tile along lanes."""

    def end(self, block: Any) -> None:
        """Emit what comes after the last row."""


def fits_panel(words: int) -> bool:
    """Whether a panel of so many 32-bit words of depth can be expanded."""
    return BLOCK * depth_tiles(words) * TILE_BYTES <= MAX_PANEL


def product_work(rows: int, lanes: int, words: int) -> dict[str, int]:
    """MACs of a product, padding included, and signs that are expanded for it."""
    lane_tiles, row_tiles = lanes // HALF, -(-rows // TILE_ROWS)
    return {
        "int8": lane_tiles * row_tiles * depth_tiles(words) * TILE_BYTES * HALF,
        "signs": lane_tiles * HALF * words * WORD,
    }


def configure(e: Emitter) -> None:
    """Emit the configuration of tile registers: all have 16 rows of 64 bytes."""
    shapes = e.local("uint8", _CONFIGURATION)
    e.store(shapes, 0, e.constant("uint8", 0, _CONFIGURATION), _CONFIGURATION)
    e.store(shapes, 0, e.constant("uint8", 1))
    for register in range(_REGISTERS):
        e.store(shapes, _COLUMN_BYTES + 2 * register, e.constant("uint8", TILE_DEPTH))
        e.store(shapes, _ROW_COUNTS + register, e.constant("uint8", TILE_ROWS))
    e.perform("llvm.x86.ldtilecfg", T.address_of(shapes[0]))


@dataclass
class AmxProduct:
    """Emits the product of one panel.

    Attributes:
        emitter: Where the code goes.
        rows: Rows of the product.
        words: 32-bit words of a packed vector, the depth.
    """

    emitter: Emitter
    rows: int
    words: int
    _table: Any = field(init=False)
    _panel: Any = field(init=False)
    _sums: Any = field(init=False)

    def __post_init__(self) -> None:
        e = self.emitter
        self._depth = depth_tiles(self.words)
        configure(e)
        self._table = e.let(_nibble_signs(e))
        self._panel = e.scratch("int8", BLOCK * self._depth * TILE_BYTES)
        self._sums = e.scratch("int32", BLOCK * BLOCK * _SUMS)

    def release(self) -> None:
        """Leave the tiles clear, so that the system need not save them."""
        self.emitter.perform("llvm.x86.tilerelease")

    def expand(self, lane_operand: Any, first: Any) -> None:
        """Emit the expansion of a panel.

        Args:
            lane_operand: Buffer of 32-bit elements in the lanes layout.
            first: Index of the panel's first element.
        """
        e = self.emitter
        # Depth ends with a tile, and an odd number of words in the middle of one.
        gap = self._depth * TILE_BYTES - self.words * _WORD_BYTES
        with e.loop(0, BLOCK * self.words) as word:
            bits = e.let(e.load(lane_operand, first + word * HALF, HALF))
            place = word * _WORD_BYTES
            if gap:
                place = place + T.Select(word >= self.words, gap, 0)
            place = e.let(place)
            for row in range(_ROWS_OF_WORD):
                shifted = T.shift_right(bits, e.constant("uint32", row * _BITS_OF_ROW, HALF))
                signs = T.call_llvm_pure_intrin(
                    f"int32x{HALF}",
                    "llvm.x86.avx512.permvar.si.512",
                    self._table,
                    T.call_intrin(f"int32x{HALF}", "tirx.reinterpret", shifted),
                )
                as_bytes = T.call_intrin(f"int8x{TILE_DEPTH}", "tirx.reinterpret", signs)
                e.store(self._panel, place + row * TILE_DEPTH, as_bytes, TILE_DEPTH)

    def multiply(self, row_operand: Any, epilogue: BlockEpilogue) -> None:
        """Emit the products of all rows with the panel, and their epilogues.

        Args:
            row_operand: Buffer of signs.
            epilogue: What becomes of the sums.
        """
        block_rows = BLOCK * TILE_ROWS
        blocks, left = divmod(self.rows, block_rows)

        def parts(block: Any, rows: int) -> list[Callable[[], None]]:
            finished = [
                partial(self._finish, epilogue, block, row, tile)
                for row in range(rows)
                for tile in range(BLOCK)
            ]
            return [epilogue.begin, *finished, partial(epilogue.end, block)]

        waiting: list[Callable[[], None]] = []
        if blocks:
            self._block(row_operand, 0, BLOCK, waiting)
            waiting = parts(blocks - 1, block_rows)
        if blocks > 1:
            with self.emitter.loop(1, blocks) as block:
                self._block(row_operand, block, BLOCK, parts(block - 1, block_rows))
        if left:
            self._block(row_operand, blocks, -(-left // TILE_ROWS), waiting)
            waiting = parts(blocks, left)
        for part in waiting:
            part()

    def _finish(self, epilogue: BlockEpilogue, block: Any, row: int, tile: int) -> None:
        e = self.emitter
        number = row // TILE_ROWS * BLOCK + tile
        index = number * _SUMS + row % TILE_ROWS * HALF
        value = e.cast("float32", e.load(self._sums, index, HALF), HALF)
        epilogue.finish(block, row, tile, value)

    def _block(
        self, row_operand: Any, block: Any, row_tiles: int, beside: Sequence[Callable[[], None]]
    ) -> None:
        """Emit the products of a block, and other work evenly between them."""
        e, depth = self.emitter, self._depth
        stride = T.int64(TILE_DEPTH)
        places = [(row, tile) for row in range(row_tiles) for tile in range(BLOCK)]
        sums = [(row, tile, row * BLOCK + tile) for row, tile in places]
        for _, _, register in sums:
            e.perform("llvm.x86.tilezero", T.uint8(register))
        first = e.let(block * (BLOCK * depth * TILE_BYTES))
        for k in range(depth):
            for row in range(row_tiles):
                place = T.address_of(row_operand[first + (row * depth + k) * TILE_BYTES])
                e.perform("llvm.x86.tileloadd64", T.uint8(_ROW + row), place, stride)
            for tile in range(BLOCK):
                index = (tile * depth + k) * TILE_BYTES
                place = T.address_of(self._panel[index])
                e.perform("llvm.x86.tileloadd64", T.uint8(_LANE + tile), place, stride)
            for row, tile, register in sums:
                operands = (T.uint8(number) for number in (register, _ROW + row, _LANE + tile))
                e.perform("llvm.x86.tdpbssd", *operands)
            for part in beside[len(beside) * k // depth : len(beside) * (k + 1) // depth]:
                part()
        for _, _, register in sums:
            place = T.address_of(self._sums[register * _SUMS])
            e.perform("llvm.x86.tilestored64", T.uint8(register), place, stride)


def _nibble_signs(e: Emitter) -> Any:
    """Table of 16 times 4 bytes: byte j of entry i is +1 if bit j of i is set, else -1."""
    entry = T.Ramp(T.uint32(0), T.uint32(1), HALF)
    table = e.constant("uint32", 0xFFFFFFFF, HALF)
    for bit in range(_BITS_OF_ROW):
        is_set = T.bitwise_and(
            T.shift_right(entry, e.constant("uint32", bit, HALF)), e.constant("uint32", 1, HALF)
        )
        # From 0xFF to 0x01.
        table = table - is_set * e.constant("uint32", 0xFE << 8 * bit, HALF)
    return T.call_intrin(f"int32x{HALF}", "tirx.reinterpret", table)
