"""The popcount tile: broadcast rows against blocks of lanes, with all sums in registers.

Instruction set: any; the element decides the instructions. Tile: rows x lane blocks of the Isa.
Layout: `rows` for the broadcast operand, `lanes` for the other (vitc.targets.layouts).

With 32-bit elements the sums are exact in 32 bits. With 8-bit elements a lane takes at most 31
steps of at most 8 before its sum is widened to 16 bits, so no sum can overflow up to a contracted
length of 65535.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tvm.script.ir_builder import tirx as T

from vitc.targets.isa import Isa
from vitc.targets.kernels.emitter import HALF, Emitter

__all__ = ["BYTE_STEPS", "PopcountTile", "chunks"]

BYTE_STEPS = 31
"""Steps that an 8-bit sum of popcounts can take: 31 * 8 = 248."""


def chunks(elements: int) -> list[tuple[int, int]]:
    """Split `elements` steps into even (start, stop) runs that an 8-bit sum can hold."""
    count = -(-elements // BYTE_STEPS)
    size = -(-elements // count)
    return [(start, min(start + size, elements)) for start in range(0, elements, size)]


@dataclass
class PopcountTile:
    """Emits the tile and hands out its sums.

    Attributes:
        emitter: Where the code goes.
        isa: Tile and element.
        rows: Rows in this tile.
        blocks: Lane blocks in this tile.
        elements: Elements of one packed row.
    """

    emitter: Emitter
    isa: Isa
    rows: int
    blocks: int
    elements: int

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
        zero = e.constant(self.isa.element, 0, lanes)
        runs = chunks(self.elements) if self._wide else [(0, self.elements)]
        row_starts = [e.let(row_index(r)) for r in range(self.rows)]
        lane_starts = [e.let(lane_index(b)) for b in range(self.blocks)]
        for number, (start, stop) in enumerate(runs):
            for slot in range(self.rows * self.blocks):
                e.store(self._sums, slot * lanes, zero, lanes)
            with e.loop(start, stop) as step:
                vectors = [
                    e.let(e.load(lane_operand, lane_starts[b] + step * lanes, lanes))
                    for b in range(self.blocks)
                ]
                for r in range(self.rows):
                    value = e.let(e.splat(row_operand[row_starts[r] + step], lanes))
                    for b in range(self.blocks):
                        slot = (r * self.blocks + b) * lanes
                        count = T.popcount(T.bitwise_xor(value, vectors[b]))
                        e.store(self._sums, slot, e.load(self._sums, slot, lanes) + count, lanes)
            if self._wide:
                self._widen(first=number == 0)

    def _widen(self, *, first: bool) -> None:
        e, lanes = self.emitter, self.isa.lanes
        for slot in range(0, self.rows * self.blocks * lanes, lanes):
            value = e.cast("uint16", e.load(self._sums, slot, lanes), lanes)
            if not first:
                value = value + e.load(self._total, slot, lanes)
            e.store(self._total, slot, value, lanes)

    def sums(self, row: int, block: int, half: int) -> Any:
        """Popcounts of `HALF` lanes as int32, from lane `half * HALF` of a block on."""
        index = (row * self.blocks + block) * self.isa.lanes + half * HALF
        return self.emitter.cast("int32", self.emitter.load(self._total, index, HALF), HALF)
