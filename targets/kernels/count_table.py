"""Counts from a table: many rows against lanes that stay the same.

For every four bits of a row and each of their sixteen values, the table holds how many of them
differ from those of each lane. A row then loads a vector for four bits and adds it, with an index
that takes three instructions in general registers. `PopcountTile` shuffles as well, and its table,
which is the same for all lanes, wants an index and a load for four bits of a row, too: that pays
where a row meets many lanes.

Instruction set: those whose lanes are bytes, with shuffles to make the table by. Tile: rows x lane
blocks of the Isa. Layout: packed rows as they come, `lanes` for the other operand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from tvm.script.ir_builder import tirx as T

from vitc.targets.isa import Isa
from vitc.targets.kernels.emitter import Emitter
from vitc.targets.kernels.popcount_tile import BYTE_STEPS, nibble_table

__all__ = ["CountTable", "CountTile", "fits_table"]

_VALUES = 16
"""Of four bits."""
_WORD = 8
"""Bytes of a row that are loaded at once."""
_WORDS = 3
"""Of those, how many are added to an 8-bit sum: with what is left of a row 31 bytes at most."""
_MOST_BYTES = 64 << 10
"""Of a table: it lies on the stack, and threads of musl have 128 KiB."""
_LANE_BYTES = 2 << 10
"""Of a table for every lane of a vector: beyond the first-level cache narrow loads do not pay."""


def fits_table(isa: Isa, blocks: int, row: int) -> bool:
    """Whether counts come from a table, of so many lane blocks and bytes of a row."""
    most = min(_MOST_BYTES, _LANE_BYTES * isa.lanes)
    return bool(isa.shuffle) and 2 * row * _VALUES * _entry(isa, blocks) <= most


def _entry(isa: Isa, blocks: int) -> int:
    """Bytes of an entry: a power of two, so that an index is a turn and a mask."""
    return 1 << (blocks * isa.lanes - 1).bit_length()


@dataclass
class CountTable:
    """Emits the table, to be done once, at the start of a kernel.

    Attributes:
        emitter: Where the code goes.
        isa: Lanes.
        blocks: Lane blocks.
        row: Bytes of a row.
        lanes: The lanes operand, a buffer of bytes: [blocks, steps, lanes].
        steps: Bytes of a lane in it, padding included.
    """

    emitter: Emitter
    isa: Isa
    blocks: int
    row: int
    lanes: Any
    steps: int

    def __post_init__(self) -> None:
        e, lanes = self.emitter, self.isa.lanes
        self.entry = _entry(self.isa, self.blocks)
        self.data = e.scratch("uint8", 2 * self.row * _VALUES * self.entry)
        counts = nibble_table(e, self.isa)
        low, four = e.constant("uint8", 15, lanes), e.constant("uint8", 4, lanes)
        with e.loop(0, self.row) as byte, e.loop(0, self.blocks) as block:
            place = (block * self.steps + byte) * lanes
            both = e.let(e.load(self.lanes, place, lanes))
            halves = (T.bitwise_and(both, low), T.shift_right(both, four))
            for half, bits in enumerate(e.let(part) for part in halves):
                for value in range(_VALUES):
                    found = T.call_llvm_pure_intrin(
                        f"uint8x{lanes}", self.isa.shuffle,
                        e.load(counts, value * lanes, lanes), bits,
                    )  # fmt: skip
                    at = ((2 * byte + half) * _VALUES + value) * self.entry + block * lanes
                    e.store(self.data, at, found, lanes)


@dataclass
class CountTile:
    """Emits the counts of some rows and hands them out, as `PopcountTile` does.

    Attributes:
        table: Made before.
        rows: Rows in this tile.
        blocks: Lane blocks in this tile.
    """

    table: CountTable
    rows: int
    blocks: int

    def __post_init__(self) -> None:
        e, lanes = self.table.emitter, self.table.isa.lanes
        self._wide = self.table.row > BYTE_STEPS
        count = self.rows * self.blocks * lanes
        self._sums = e.local("uint8", count)
        self._total = e.local("uint16", count) if self._wide else self._sums
        self._slots = range(0, count, lanes)

    def emit(self, rows: Any, row_index: Callable[[int], Any], lane: Any) -> None:
        """Emit the counts.

        Args:
            rows: Packed rows, a buffer of bytes.
            row_index: Index of the first byte of row r of the tile.
            lane: The first lane of the tile.
        """
        e, lanes = self.table.emitter, self.table.isa.lanes
        starts = [e.let(row_index(row)) for row in range(self.rows)]
        words, rest = divmod(self.table.row, _WORD)
        runs = max(1, -(-words // _WORDS))
        ends = [words * run // runs for run in range(runs + 1)]
        for run, (first, last) in enumerate(pairwise(ends)):
            for slot in self._slots:
                e.store(self._sums, slot, e.constant("uint8", 0, lanes), lanes)
            for word in range(first, last):
                self._add(rows, starts, word * _WORD, _WORD, lane)
            if last == words:
                for at, size in _powers(words * _WORD, rest):
                    self._add(rows, starts, at, size, lane)
            if self._wide:
                self._widen(first=run == 0)

    def _add(self, rows: Any, starts: Sequence[Any], byte: int, size: int, lane: Any) -> None:
        """Add the counts of some bytes of each row, from one on."""
        table, e, lanes = self.table, self.table.emitter, self.table.isa.lanes
        words = []
        for start in starts:
            bits = e.load(rows, start + byte, size)
            if size > 1:
                bits = T.call_intrin(f"uint{8 * size}", "tirx.reinterpret", bits)
            words.append(e.let(e.cast("int64", bits)))
        lane = e.cast("int64", lane)
        scale, span = table.entry.bit_length() - 1, _VALUES * table.entry
        for number in range(2 * size):
            right = 4 * number - scale
            shift = T.shift_right if right >= 0 else T.shift_left
            for row, bits in enumerate(words):
                value = T.bitwise_and(shift(bits, T.int64(abs(right))), T.int64(span - table.entry))
                place = e.let(value + lane)
                for block in range(self.blocks):
                    slot = (row * self.blocks + block) * lanes
                    at = (2 * byte + number) * span + block * lanes
                    found = e.load(table.data, place + at, lanes)
                    e.store(self._sums, slot, e.load(self._sums, slot, lanes) + found, lanes)

    def _widen(self, *, first: bool) -> None:
        e, lanes = self.table.emitter, self.table.isa.lanes
        for slot in self._slots:
            value = e.cast("uint16", e.load(self._sums, slot, lanes), lanes)
            if not first:
                value = value + e.load(self._total, slot, lanes)
            e.store(self._total, slot, value, lanes)

    def vector(self, row: int, block: int) -> Any:
        """Counts of a whole lane block, uint8 or, of rows of more than 31 bytes, uint16."""
        lanes = self.table.isa.lanes
        return self.table.emitter.load(self._total, (row * self.blocks + block) * lanes, lanes)


def _powers(start: int, count: int) -> Iterator[tuple[int, int]]:
    """Start and size of pieces of fewer than eight bytes."""
    for size in (4, 2, 1):
        if count & size:
            yield start, size
            start += size
