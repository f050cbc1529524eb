"""The slices tile: sums of (row XOR lane) counted by full adders, in lanes of one bit.

Instruction set: any whose vectors have plain logic; with ternary logic an adder is two
instructions. Tile: one row against one block of lanes, a vector of which holds one bit of each.
Layout: `rows` for the broadcast operand, `slices` (vitc.targets.packing) for the other.

The bits of a sum lie in vectors of their own, its slices: bit b of every lane's sum in slice b. The
slice of weight 1 needs no adder: after any k it is the parity of the lane so far XOR that of the
row. Two more k then carry into weight 2 what is a function of three parities of the row (before,
between and behind) and of the lane: a table of eight vectors for two k, made once for all rows. A
row loads one vector for two k and adds it, where a popcount takes an XOR, a count and an addition
for each of a few bits.

Full adders make of three vectors of one weight one of that weight and a carry of twice the weight,
so 32 steps of two k leave one carry of weight 64 for what goes on. At the end, the slices of a row
are transposed to numbers: 8 x 8 bits at a time, in the order of lanes that the layout has.

All sums are exact for any length: there are as many slices as a sum of all ones has bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

from tvm.script.ir_builder import tirx as T

from vitc.targets.isa import Isa
from vitc.targets.kernels.emitter import HALF, Emitter
from vitc.targets.packing import WORD, round_up

__all__ = ["Finish", "SlicesProduct", "joint_lanes", "slice_adders", "slice_blocks", "uses_slices"]

Finish = Callable[[Any, Any, Any], None]
"""Emits what becomes of 16 lanes, of the row, the first lane and the sums (int32)."""

LEAST_ROWS = 32
"""Fewest rows for which tables are worth making."""

LONGEST = 4095
"""Most bits of one contraction, whose sums have 12 slices."""

_JOINT = 0.95
"""Of the time that products take alone, what they may take together to be worth a kernel."""

_SPAN = 96
"""Most rows that go through the parts of a table together: their slices lie on the stack, and with
the table they take 84 KiB at most, as threads of musl have 128."""

_BITS = 64
"""Bits of a row that are taken at once, and of a part of the table."""
_STEPS = _BITS // 2
_PATTERNS = 8
_SUM, _CARRY, _SELECT = 0x96, 0xD4, 0xCA
_MAJORITY = {0: 0xE8, 7: 0x8E, 6: 0xB2, 4: 0xD4}
"""Truth tables of the carry of (a, x, y) where a row turns nothing, a, x or y round, by the three
parities of the row that say so. All three turned round (the parities XOR 5) complement it."""


def slice_blocks(isa: Isa, lanes: int) -> tuple[int, int]:
    """Blocks of lanes, and lanes of each, a multiple of 16: as few blocks as hold them, alike."""
    groups = -(-lanes // HALF)
    blocks = -(-groups * HALF // (8 * isa.slice_bytes))
    return blocks, -(-groups // blocks) * HALF


def uses_slices(isa: Isa, rows: int, lanes: int, length: int) -> bool:
    """Whether an instruction set runs a product of such rows, lanes and length by bit slices.

    A row takes as long for a block of few lanes as for a full one, and making its numbers takes as
    long for a short length as for a long one. What that is worth in popcounts was measured.
    """
    if not isa.slice_bytes or rows < LEAST_ROWS or length > LONGEST:
        return False
    width = slice_blocks(isa, lanes)[1]
    return (width - isa.slice_fill) * length >= isa.slice_cost


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
        alone += min(vectors, slice_blocks(isa, lanes)[0]) if by_rows else vectors
    full, rest = divmod(total, vector)
    if not full:
        return 0
    counts_rest = rest < counted and rest <= products[-1][0]
    if full + (rest / counted if counts_rest else 1) > _JOINT * alone:
        return 0
    return full * vector if counts_rest else total


def slice_adders(isa: Isa, rows: int, lanes: int, depth: int) -> int:
    """Full adders of vectors in a product by ternary logic."""
    words, left = divmod(depth, _BITS)
    runs = [1 << level for level in range(2, _STEPS.bit_length()) if _steps(left) & 1 << level]
    each = words * (_STEPS - 1) + sum(run - 1 for run in runs)
    return rows * slice_blocks(isa, lanes)[0] * each


@dataclass
class SlicesProduct:
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

    def __post_init__(self) -> None:
        e = self.emitter
        self._blocks, self._width = slice_blocks(self.isa, self.lanes)
        self._vector = self.isa.slice_bytes // 8
        self._levels = self.depth.bit_length()
        self._parts = -(-self.depth // _BITS) - 1
        """Parts of the table before the last."""
        self._parity = _STEPS * _PATTERNS * self._vector
        self._table = e.scratch("uint64", self._parity + 2 * self._vector)
        # All lanes, and a vector that is stored whole behind the last.
        self._values = e.scratch("uint16", (_BITS + 4) * self._vector)
        kept = _SPAN * ((self._levels - 1) * self._vector + 1)
        self._kept: Any = e.scratch("uint64", kept) if self._parts else None

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
        e = self.emitter
        first, last = span
        whole = self._fixed(last - first, "int32")
        count = self._fixed(T.truncdiv(whole + T.int32(_SPAN - 1), T.int32(_SPAN)), "int32")
        # Spans of rows as equal as they can be: a last one of a few would want a table for itself.
        equal = T.truncdiv(whole + count - T.int32(1), T.max(count, T.int32(1)))
        size = self._fixed(equal, "int32")
        with e.loop(0, count) as number, e.loop(0, self._blocks) as block:
            begin = e.let(first + number * size)
            end = e.let(T.min(begin + size, last))
            lane = e.let(block * self._width)
            self._block(rows, lanes, lane, (begin, end), parts)

    def _block(
        self,
        rows: Any,
        lanes: Any,
        lane: Any,
        span: tuple[Any, Any],
        parts: Sequence[tuple[int, Finish]],
    ) -> None:
        """Emit the sums of a block of lanes."""
        e = self.emitter
        first, last = span
        at = e.let(T.truncdiv(lane, T.int32(HALF)) * self.depth)
        e.store(self._table, self._parity, e.constant("uint64", 0, self._vector), self._vector)
        if self._parts:
            self._clear(e.let(last - first))
            with e.loop(0, self._parts) as word:
                self._make(lanes, at, word, _BITS)
                with e.loop(first, last) as row:
                    self._resume(row - first)
                    self._count(rows, row, word, _STEPS)
                    self._suspend(row - first)
        left = self.depth - self._parts * _BITS
        self._make(lanes, at, self._parts, left)
        behind = list(accumulate(count for count, _ in parts))
        stops = [0, *(self._groups(stop, lane, several=len(parts) > 1) for stop in behind)]
        with e.loop(first, last) as row:
            self._resume(row - first)
            self._count(rows, row, self._parts, _steps(left))
            self._transpose()
            for (begin, end), (_, finish) in zip(pairwise(stops), parts, strict=True):
                with e.loop(begin, end) as group:
                    sums = e.cast("int32", e.load(self._values, group * HALF, HALF), HALF)
                    finish(row, e.let(lane + group * HALF), sums)

    def _groups(self, stop: int, lane: Any, *, several: bool) -> Any:
        """Groups of 16 lanes of the block that begins at a lane, in front of another lane."""
        groups = T.truncdiv(T.int32(stop + HALF - 1) - lane, T.int32(HALF))
        groups = T.min(groups, T.int32(self._width // HALF))
        return self._fixed(T.max(groups, T.int32(0)) if several else groups, "int32")

    # The slices of a row, the parity of its bits so far, and where they are kept between parts.

    def _clear(self, count: Any) -> None:
        e, size = self.emitter, (self._levels - 1) * self._vector
        with e.loop(0, count) as row:
            for level in range(self._levels - 1):
                at = row * size + level * self._vector
                e.store(self._kept, at, e.constant("uint64", 0, self._vector), self._vector)
            e.store(self._kept, _SPAN * size + row, e.constant("uint64", 0))

    def _resume(self, row: Any) -> None:
        e, vector = self.emitter, self._vector
        self._slices = e.local("uint64", (self._levels + 1) * vector)
        self._before = e.local("uint64", 1)
        size = (self._levels - 1) * vector
        for level in range(self._levels - 1):
            value = e.constant("uint64", 0, vector)
            if self._parts:
                value = e.load(self._kept, row * size + level * vector, vector)
            e.store(self._slices, (level + 1) * vector, value, vector)
        before = e.constant("uint64", 0)
        if self._parts:
            before = self._kept[_SPAN * size + row]
        e.store(self._before, 0, before)

    def _suspend(self, row: Any) -> None:
        e, vector = self.emitter, self._vector
        size = (self._levels - 1) * vector
        for level in range(self._levels - 1):
            value = e.load(self._slices, (level + 1) * vector, vector)
            e.store(self._kept, row * size + level * vector, value, vector)
        e.store(self._kept, _SPAN * size + row, self._before[0])

    # The table.

    def _make(self, lanes: Any, block: Any, word: Any, bits: int) -> None:
        """Make a part of the table: [steps, patterns] of vectors, then the parities of the lanes.

        Args:
            lanes: The lanes operand.
            block: Index of the block in it.
            word: The part, of 64 bits.
            bits: Those that there are; the lanes behind them are zeros, as the rows are.
        """
        e, vector = self.emitter, self._vector
        stride = self._width // HALF

        def lane(bit: Any) -> Any:
            loaded = e.load(lanes, block + (word * _BITS + bit) * stride, 4 * vector)
            return e.let(self._as("uint64", loaded))

        def step(number: Any, x: Any, y: Any) -> None:
            a = e.let(e.load(self._table, self._parity, vector))
            at = number * (_PATTERNS * vector)
            for pattern, truth in _MAJORITY.items():
                carry = e.let(self._logic(a, x, y, truth))
                e.store(self._table, at + pattern * vector, carry, vector)
                e.store(self._table, at + (pattern ^ 5) * vector, T.bitwise_not(carry), vector)
            e.store(self._table, self._parity, self._logic(a, x, y, _SUM), vector)

        with e.loop(0, bits // 2) as number:
            step(number, lane(2 * number), lane(2 * number + 1))
        zero = e.constant("uint64", 0, vector)
        for number in range(bits // 2, _steps(bits)):
            step(number, lane(2 * number) if 2 * number < bits else zero, zero)
        parity = e.load(self._table, self._parity, vector)
        e.store(self._table, self._parity + vector, T.bitwise_not(parity), vector)

    # Counting.

    def _count(self, rows: Any, row: Any, word: Any, steps: int) -> None:
        """Add up to 64 bits of a row."""
        e, vector = self.emitter, self._vector
        at = e.let(row * self.words + word * 2)
        if steps * 2 > WORD:
            bits = T.call_intrin("uint64", "tirx.reinterpret", e.load(rows, at, 2))
        else:
            bits = e.cast("uint64", rows[at])
        q = self._fixed(bits)
        for shift in (1, 2, 4, 8, 16, 32):
            q = self._fixed(T.bitwise_xor(q, T.shift_left(q, T.uint64(shift))))
        before = self._fixed(self._before[0])
        q = self._fixed(T.bitwise_xor(q, before))

        def entry(step: int) -> Any:
            if step:
                three = T.shift_right(q, T.uint64(2 * step - 1))
            else:
                one = T.bitwise_and(before, T.uint64(1))
                three = T.bitwise_or(T.shift_left(q, T.uint64(1)), one)
            pattern = e.cast("int64", T.bitwise_and(three, T.uint64(_PATTERNS - 1)))
            index = pattern * vector + T.int64(step * _PATTERNS * vector)
            return e.let(e.load(self._table, index, vector))

        def count(step: int, level: int) -> Any:
            if level == 0:
                return entry(step)
            x = count(step, level - 1)
            y = count(step + (1 << (level - 1)), level - 1)
            return self._add(level, x, y)

        done = 0
        for level in range(_STEPS.bit_length() - 1, 1, -1):
            if steps & 1 << level:
                carry = count(done, level)
                done += 1 << level
                for above in range(level + 1, self._levels):
                    carry = self._ripple(above, carry)
        # All ones or zeros. (TVM's 0 - x of unsigned numbers must not wrap round.)
        sign = T.shift_right(e.cast("int64", q), T.int64(63))
        e.store(self._before, 0, e.cast("uint64", sign))

    def _add(self, level: int, x: Any, y: Any) -> Any:
        """Add two vectors to a slice; returns the carry."""
        e, vector = self.emitter, self._vector
        if level >= self._levels:
            return x
        old = e.let(e.load(self._slices, level * vector, vector))
        if self.isa.ternary:
            new = e.let(self._logic(old, x, y, _SUM))
            carry = e.let(self._logic(y, x, new, _CARRY))
        else:
            both = e.let(T.bitwise_xor(x, y))
            new = T.bitwise_xor(old, both)
            carry = e.let(T.bitwise_xor(x, T.bitwise_and(both, T.bitwise_xor(old, x))))
        e.store(self._slices, level * vector, new, vector)
        return carry

    def _ripple(self, level: int, x: Any) -> Any:
        """Add a vector to a slice; returns the carry."""
        e, vector = self.emitter, self._vector
        old = e.let(e.load(self._slices, level * vector, vector))
        e.store(self._slices, level * vector, T.bitwise_xor(old, x), vector)
        return e.let(T.bitwise_and(old, x))

    # Numbers.

    def _transpose(self) -> None:
        """Make 16-bit numbers of the slices, in the order of lanes."""
        e, vector = self.emitter, self._vector
        wide = 4 * vector

        def const(value: int) -> Any:
            return e.constant("uint16", value, wide)

        odd_row = e.cast("int32", T.bitwise_and(self._before[0], T.uint64(1)))
        parity = e.load(self._table, self._parity + odd_row * vector, vector)
        slices = [parity] + [
            e.load(self._slices, level * vector, vector) for level in range(1, self._levels)
        ]
        slices = [e.let(self._as("uint16", value)) for value in slices]
        planes, high = slices[:8] + [const(0)] * (8 - len(slices)), slices[8:]
        for distance, mask in ((1, 0x5555), (2, 0x3333), (4, 0x0F0F)):
            for i in range(8):
                if i & distance:
                    continue
                a, b = planes[i], planes[i + distance]
                up, down = T.shift_left(b, const(distance)), T.shift_right(a, const(distance))
                planes[i] = e.let(self._choose(const(mask), a, up))
                planes[i + distance] = e.let(self._choose(const(mask), down, b))
        for i, plane in enumerate(planes):
            even, odd = T.bitwise_and(plane, const(0xFF)), T.shift_right(plane, const(8))
            if high:
                more: Any = const(0)
                for weight, bits in enumerate(high):
                    bit = T.bitwise_and(T.shift_right(bits, const(i)), const(0x0101))
                    more = T.bitwise_or(more, T.shift_left(bit, const(weight)))
                more = e.let(more)
                even = T.bitwise_or(even, T.shift_left(more, const(8)))
                odd = T.bitwise_or(odd, T.bitwise_and(more, const(0xFF00)))
            # Vectors that a block does not fill end in garbage, over which the next are stored.
            at = i * (self._width // 8)
            e.store(self._values, at, even, wide)
            e.store(self._values, at + self._width // HALF, odd, wide)

    def _fixed(self, value: Any, dtype: str = "uint64") -> Any:
        """A number that TVM computes here and once: what is bound it puts in where it is used."""
        held = self.emitter.local(dtype, 1)
        self.emitter.store(held, 0, value)
        return self.emitter.let(held[0])

    # Vectors.

    def _as(self, dtype: str, value: Any) -> Any:
        lanes = self._vector * (64 // int(dtype[4:]))
        return T.call_intrin(f"{dtype}x{lanes}", "tirx.reinterpret", value)

    def _choose(self, mask: Any, yes: Any, no: Any) -> Any:
        """Bits of one where the mask has them, else of the other."""
        if self.isa.ternary:
            a, b, c = (self._as("uint64", value) for value in (mask, yes, no))
            return self._as("uint16", self._logic(a, b, c, _SELECT))
        return T.bitwise_or(T.bitwise_and(mask, yes), T.bitwise_and(T.bitwise_not(mask), no))

    def _logic(self, a: Any, b: Any, c: Any, truth: int) -> Any:
        """A function of three vectors, by its truth table."""
        if self.isa.ternary:
            kind = f"int64x{self._vector}"
            a, b, c = (T.call_intrin(kind, "tirx.reinterpret", v) for v in (a, b, c))
            value = T.call_llvm_pure_intrin(kind, self.isa.ternary, a, b, c, T.int32(truth))
            return self._as("uint64", value)
        if truth == _SUM:
            return T.bitwise_xor(T.bitwise_xor(a, b), c)
        turned = {0xE8: (a, b, c), 0x8E: (T.bitwise_not(a), b, c), 0xB2: (a, T.bitwise_not(b), c),
                  0xD4: (a, b, T.bitwise_not(c))}  # fmt: skip
        x, y, z = turned[truth]
        both = T.bitwise_xor(x, y)
        return T.bitwise_xor(x, T.bitwise_and(both, T.bitwise_xor(z, x)))


def _steps(bits: int) -> int:
    """Steps of two bits each, a multiple of 4."""
    return round_up(-(-bits // 2), 4)
