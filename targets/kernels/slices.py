"""What products by bit slices have in common: when they pay, and the order of rows and lanes.

Instruction set: any whose vectors have plain logic. Tiles: vitc.targets.kernels.slices_tile and
slices_across, whose layouts and ways to count are their own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from tvm.script.ir_builder import tirx as T

from vitc.targets.isa import Isa
from vitc.targets.kernels.emitter import HALF, Emitter
from vitc.targets.packing import WORD, round_up

__all__ = [
    "BITS",
    "PATTERNS",
    "STEPS",
    "Finish",
    "SliceSums",
    "joint_lanes",
    "slice_blocks",
    "slice_vector",
    "slice_work",
    "steps_of",
    "uses_slices",
]

Finish = Callable[[Any, Any, Sequence[Any]], None]
"""Emits what becomes of some times 16 lanes, of the row, the first lane and the sums (int32)."""

LEAST_ROWS = 32
"""Fewest rows for which tables are worth making."""

LONGEST = 4095
"""Most bits of one contraction, whose sums have 12 slices."""

_JOINT = 0.95
"""Of the time that products take alone, what they may take together to be worth a kernel."""

BITS = 64
"""Bits of a row that are taken at once, and of a part of the table."""
STEPS = BITS // 2
PATTERNS = 8


def slice_blocks(isa: Isa, lanes: int) -> tuple[int, int]:
    """Blocks of lanes, and lanes of each, a multiple of 16: as few blocks as hold them, alike."""
    groups = -(-lanes // HALF)
    blocks = -(-groups * HALF // (8 * isa.slice_bytes * isa.slice_vectors))
    return blocks, -(-groups // blocks) * HALF


def slice_vector(isa: Isa) -> int:
    """Lanes of one of several vectors side by side; 0 where a block is one."""
    return 8 * isa.slice_bytes if isa.slice_vectors > 1 else 0


def uses_slices(isa: Isa, rows: int, lanes: int, length: int) -> bool:
    """Whether an instruction set runs a product of such rows, lanes and length by bit slices.

    A row takes as long for a block of few lanes as for a full one, and making its numbers takes as
    long for a short length as for a long one. What that is worth in popcounts was measured.
    """
    if not isa.slice_bytes or rows < LEAST_ROWS or length > LONGEST:
        return False
    width = slice_blocks(isa, lanes)[1]
    filled = width / -(-width // (8 * isa.slice_bytes))
    return (filled - isa.slice_fill) * length >= isa.slice_cost


def joint_lanes(isa: Isa, rows: int, products: Sequence[tuple[int, bool]], length: int) -> int:
    """Lanes that go by bit slices where products of the same rows are one; 0 if that is no faster.

    They fill vectors; what is left of the last product is counted, where that is faster than a
    vector of few lanes.

    Args:
        isa: Vectors.
        rows: Rows.
        products: Lanes of each product, a multiple of 16, and whether it has its rows finished one
            by one, so that it may go by slices alone.
        length: Contracted length.
    """
    if not isa.slice_bytes or rows < LEAST_ROWS or length > LONGEST or len(products) < 2:
        return 0
    # Lanes that are counted in the time of a vector.
    counted = isa.slice_fill + isa.slice_cost / length
    vector, total = 8 * isa.slice_bytes, sum(lanes for lanes, _ in products)
    alone = 0.0
    for lanes, by_rows in products:
        vectors = lanes / counted
        alone += min(vectors, -(-lanes // vector)) if by_rows else vectors
    full, rest = divmod(total, vector)
    if not full:
        return 0
    counts_rest = rest < counted and rest <= products[-1][0]
    if full + (rest / counted if counts_rest else 1) > _JOINT * alone:
        return 0
    return full * vector if counts_rest else total


def slice_work(isa: Isa, rows: int, lanes: int, depth: int) -> dict[str, int]:
    """Full adders of vectors in a product, for `Kernel.work`; none where a model has no use for it.

    Of vectors side by side they are XORs, of which an adder has two.
    """
    if not isa.ternary and isa.slice_vectors == 1:
        return {}
    words, left = divmod(depth, BITS)
    runs = [1 << level for level in range(2, STEPS.bit_length()) if steps_of(left) & 1 << level]
    each = words * (STEPS - 1) + sum(run - 1 for run in runs)
    blocks, width = slice_blocks(isa, lanes)
    if isa.slice_vectors > 1:
        each *= 2 * -(-width // (8 * isa.slice_bytes))
    return {"slices": rows * blocks * each}


def steps_of(bits: int) -> int:
    """Steps of two bits each, a multiple of 4."""
    return round_up(-(-bits // 2), 4)


@dataclass
class SliceSums(ABC):
    """Emits sums of all blocks of lanes, row by row.

    Attributes:
        emitter: Where the code goes.
        isa: Vectors.
        lanes: Lanes, the last group of 16 padded.
        depth: Bits of a row, without the padding behind them.
        words: 32-bit words of a packed row.
    """

    emitter: Emitter
    isa: Isa
    lanes: int
    depth: int
    words: int
    centre: int = field(default=0, init=False)
    """What sums are counted from is less than zero by this."""

    _blocks: int = field(init=False, repr=False)
    _width: int = field(init=False, repr=False)
    _span: int = field(init=False, repr=False)
    """Blocks, lanes of each, and most rows that go through the parts of a table together."""

    def emit(
        self,
        rows: Any,
        lanes: Any,
        span: tuple[Any, Any],
        parts: Sequence[tuple[int, Finish]],
    ) -> None:
        """Emit the sums of a span of rows.

        Args:
            rows: Packed rows, a buffer of uint32.
            lanes: The other operand in the layout of slices, a buffer of uint16.
            span: First row, and the one behind the last.
            parts: Lanes of each part of them, a multiple of 16 but for the last, and what becomes
                of them.
        """
        with self.emitter.selecting(self.isa.select):
            self._spans(rows, lanes, span, parts)

    def _spans(
        self,
        rows: Any,
        lanes: Any,
        span: tuple[Any, Any],
        parts: Sequence[tuple[int, Finish]],
    ) -> None:
        """Emit the sums of as many rows as there are slices for at a time."""
        e = self.emitter
        first, last = span
        whole = self._fixed(last - first, "int32")
        more, most = T.int32(self._span - 1), T.int32(self._span)
        count = self._fixed(T.truncdiv(whole + more, most), "int32")
        # Spans of rows as equal as they can be: a last one of a few would want a table for itself.
        equal = T.truncdiv(whole + count - T.int32(1), T.max(count, T.int32(1)))
        size = self._fixed(equal, "int32")
        with e.loop(0, count) as number, e.loop(0, self._blocks) as block:
            begin = e.let(first + number * size)
            end = e.let(T.min(begin + size, last))
            lane = e.let(block * self._width)
            self._block(rows, lanes, lane, (begin, end), parts)

    def centred(self, sums: Any, k: int) -> Any:
        """Sums minus k / 2, as fp32: 16 of the lanes that `Finish` is given."""
        e, less = self.emitter, k / 2 - self.centre
        value = e.cast("float32", sums, HALF)
        return value - e.constant("float32", less, HALF) if less else value

    @abstractmethod
    def _block(
        self,
        rows: Any,
        lanes: Any,
        lane: Any,
        span: tuple[Any, Any],
        parts: Sequence[tuple[int, Finish]],
    ) -> None:
        """Emit the sums of a block of lanes."""

    def _stops(self, lane: Any, parts: Sequence[tuple[int, Finish]]) -> list[Any]:
        """Where parts begin and end in the block that begins at a lane, in groups of 16 lanes."""
        several = len(parts) > 1
        stops: list[Any] = [0]
        for stop in accumulate(count for count, _ in parts):
            groups = T.truncdiv(T.int32(stop + HALF - 1) - lane, T.int32(HALF))
            groups = T.min(groups, T.int32(self._width // HALF))
            stops.append(self._fixed(T.max(groups, T.int32(0)) if several else groups, "int32"))
        return stops

    def _parities(self, rows: Any, row: Any, word: Any, bits: int) -> Any:
        """Parities of the bits of a row in a word of 64, from its first to each; uint64."""
        e = self.emitter
        at = e.let(row * self.words + word * 2)
        if bits > WORD:
            loaded = T.call_intrin("uint64", "tirx.reinterpret", e.load(rows, at, 2))
        else:
            loaded = e.cast("uint64", rows[at])
        q = self._fixed(loaded)
        for shift in (1, 2, 4, 8, 16, 32):
            q = self._fixed(T.bitwise_xor(q, T.shift_left(q, T.uint64(shift))))
        return q

    def _fixed(self, value: Any, dtype: str = "uint64") -> Any:
        """A number that TVM computes here and once: what is bound it puts in where it is used."""
        held = self.emitter.local(dtype, 1)
        self.emitter.store(held, 0, value)
        return self.emitter.let(held[0])
