"""The popcount tile: broadcast rows against blocks of lanes, with all sums in registers.

Instruction set: any; the element decides the instructions. Tile: rows x lane blocks of the Isa.
Layout: `rows` for the broadcast operand, `lanes` for the other (vitc.targets.packing).

Where the machine has no popcount of vectors but a byte shuffle (`Isa.shuffle`), a shuffle looks up
the popcount of (row XOR lane) for four bits of each lane, in a table that is chosen by four bits of
the row: 2 instructions for 4 bits x lanes, and the table is loaded once a row for all lane blocks.
Without it, XOR and a popcount made of two shuffles take 8 instructions for twice as many bits.

With 32-bit elements the sums are exact in 32 bits. With 8-bit elements a lane takes at most 31
steps of at most 8 before its sum is widened to 16 bits, so no sum can overflow up to a contracted
length of 65535.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tvm.script.ir_builder import tirx as T

from vitc.targets.isa import Isa
from vitc.targets.kernels.emitter import HALF, Emitter

__all__ = ["BYTE_STEPS", "PopcountTile", "chunks", "nibble_table"]

BYTE_STEPS = 31
"""Steps that an 8-bit sum of popcounts can take: 31 * 8 = 248."""


def chunks(elements: int) -> list[tuple[int, int]]:
    """Split `elements` steps into even (start, stop) runs that an 8-bit sum can hold."""
    count = -(-elements // BYTE_STEPS)
    size = -(-elements // count)
    return [(start, min(start + size, elements)) for start in range(0, elements, size)]


def nibble_table(e: Emitter, isa: Isa) -> Any:
    """Emit the table of popcount(x XOR i) for four bits x (an entry) and i (a byte of the entry).

    To be emitted once, at the start of a kernel. An entry is a vector that repeats its 16 bytes.

    Returns:
        A local buffer [16, lanes] of bytes, or None where the Isa has no shuffle.
    """
    if not isa.shuffle:
        return None
    table = e.local("uint8", 16 * isa.lanes)
    low = e.constant("uint8", 15, isa.lanes)
    index = T.bitwise_and(T.Ramp(T.uint8(0), T.uint8(1), isa.lanes), low)
    for x in range(16):
        count = T.popcount(T.bitwise_xor(index, e.constant("uint8", x, isa.lanes)))
        e.store(table, x * isa.lanes, count, isa.lanes)
    return table


@dataclass
class PopcountTile:
    """Emits the tile and hands out its sums.

    Attributes:
        emitter: Where the code goes.
        isa: Tile and element.
        rows: Rows in this tile.
        blocks: Lane blocks in this tile.
        elements: Elements of one packed row.
        table: What `nibble_table` emitted, if the Isa has a shuffle.
    """

    emitter: Emitter
    isa: Isa
    rows: int
    blocks: int
    elements: int
    table: Any = None

    def __post_init__(self) -> None:
        self._wide = self.isa.element_bits == 8 and self.elements > BYTE_STEPS
        count = self.rows * self.blocks * self.isa.lanes
        self._sums = self.emitter.local(self.isa.element, count)
        self._total = self.emitter.local("uint16", count) if self._wide else self._sums

    def emit(
        self,
        row_operand: Any,
        row_index: Callable[[int], Any],
        lane_operand: Any,
        lane_index: Callable[[int], Any],
    ) -> None:
        """Emit the sums of popcount(row XOR lane).

        Args:
            row_operand: Buffer of elements in the rows layout.
            row_index: Index of the first element of row r of the tile.
            lane_operand: Buffer of elements in the lanes layout.
            lane_index: Index of the first element of lane block l of the tile.
        """
        e, lanes = self.emitter, self.isa.lanes
        runs = chunks(self.elements) if self._wide else [(0, self.elements)]
        row_starts = [e.let(row_index(r)) for r in range(self.rows)]
        lane_starts = [e.let(lane_index(b)) for b in range(self.blocks)]
        count = self._count if self.table is None else self._look_up

        def add(step: Any, *, first: bool) -> None:
            vectors = [
                e.let(e.load(lane_operand, lane_starts[b] + step * lanes, lanes))
                for b in range(self.blocks)
            ]
            count([row_operand[row + step] for row in row_starts], vectors, first=first)

        for number, (start, stop) in enumerate(runs):
            # The first step sets the sums: no zeros to store, and one addition less.
            add(start, first=True)
            with e.loop(start + 1, stop) as step:
                add(step, first=False)
            if self._wide:
                self._widen(first=number == 0)

    def _add(self, row: int, block: int, count: Any, *, first: bool) -> None:
        lanes = self.isa.lanes
        slot = (row * self.blocks + block) * lanes
        if not first:
            count = self.emitter.load(self._sums, slot, lanes) + count
        self.emitter.store(self._sums, slot, count, lanes)

    def _count(self, rows: Sequence[Any], vectors: Sequence[Any], *, first: bool) -> None:
        """Add popcount(row XOR lane), on a machine that counts the bits of a vector."""
        for r, element in enumerate(rows):
            value = self.emitter.let(self.emitter.splat(element, self.isa.lanes))
            for b, vector in enumerate(vectors):
                self._add(r, b, T.popcount(T.bitwise_xor(value, vector)), first=first)

    def _look_up(self, rows: Sequence[Any], vectors: Sequence[Any], *, first: bool) -> None:
        """Add popcount(row XOR lane), four bits at a time from the table."""
        e, lanes = self.emitter, self.isa.lanes
        low = e.constant("uint8", 15, lanes)
        four = e.constant("uint8", 4, lanes)
        # The shuffle uses the low four bits of a byte whose highest bit is clear.
        halves = [(e.let(T.bitwise_and(v, low)), e.let(T.shift_right(v, four))) for v in vectors]
        for r, element in enumerate(rows):
            byte = e.let(e.cast("int32", element))
            entries = (T.bitwise_and(byte, 15) * lanes, T.shift_right(byte, T.int32(4)) * lanes)
            for half, entry in enumerate(entries):
                counts = e.let(e.load(self.table, entry, lanes))
                for b in range(len(vectors)):
                    looked_up = T.call_llvm_pure_intrin(
                        f"uint8x{lanes}", self.isa.shuffle, counts, halves[b][half]
                    )
                    self._add(r, b, looked_up, first=first and half == 0)

    def _widen(self, *, first: bool) -> None:
        e, lanes = self.emitter, self.isa.lanes
        for slot in range(0, self.rows * self.blocks * lanes, lanes):
            value = e.cast("uint16", e.load(self._sums, slot, lanes), lanes)
            if not first:
                value = value + e.load(self._total, slot, lanes)
            e.store(self._total, slot, value, lanes)

    def vector(self, row: int, block: int) -> Any:
        """Popcounts of a whole lane block, in the data type that they were summed in."""
        lanes = self.isa.lanes
        return self.emitter.load(self._total, (row * self.blocks + block) * lanes, lanes)

    def sums(self, row: int, block: int, half: int, dtype: str = "int32") -> Any:
        """Popcounts of `HALF` lanes as `dtype`, from lane `half * HALF` of a block on."""
        index = (row * self.blocks + block) * self.isa.lanes + half * HALF
        return self.emitter.cast(dtype, self.emitter.load(self._total, index, HALF), HALF)

    def centred(self, row: int, block: int, half: int, k: int) -> Any:
        """Popcounts minus k / 2, as fp32: `HALF` lanes from lane `half * HALF` of a block on."""
        e = self.emitter
        popcount = e.cast("float32", self.sums(row, block, half), HALF)
        return popcount - e.constant("float32", k / 2, HALF)
