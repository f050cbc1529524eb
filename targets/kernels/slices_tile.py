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

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from tvm.script.ir_builder import tirx as T

from vitc.targets.kernels.emitter import HALF
from vitc.targets.kernels.slices import (
    BITS,
    PATTERNS,
    STEPS,
    Finish,
    SliceSums,
    slice_blocks,
    steps_of,
)

__all__ = ["SlicesProduct"]

_SPAN = 96
"""Most rows that go through the parts of a table together: their slices lie on the stack, and with
the table they take 84 KiB at most, as threads of musl have 128."""

_SUM, _CARRY, _SELECT = 0x96, 0xD4, 0xCA
_MAJORITY = {0: 0xE8, 7: 0x8E, 6: 0xB2, 4: 0xD4}
"""Truth tables of the carry of (a, x, y) where a row turns nothing, a, x or y round, by the three
parities of the row that say so. All three turned round (the parities XOR 5) complement it."""


@dataclass
class SlicesProduct(SliceSums):
    """Emits sums of whole vectors, with ternary logic or without."""

    def __post_init__(self) -> None:
        e = self.emitter
        self._blocks, self._width = slice_blocks(self.isa, self.lanes)
        self._vector = self.isa.slice_bytes // 8
        self._levels = self.depth.bit_length()
        self._parts = -(-self.depth // BITS) - 1
        """Parts of the table before the last."""
        self._parity = STEPS * PATTERNS * self._vector
        self._table = e.scratch("uint64", self._parity + 2 * self._vector)
        # All lanes, and a vector that is stored whole behind the last.
        self._values = e.scratch("uint16", (BITS + 4) * self._vector)
        kept = _SPAN * ((self._levels - 1) * self._vector + 1)
        self._kept: Any = e.scratch("uint64", kept) if self._parts else None
        self._span = _SPAN

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
                self._make(lanes, at, word, BITS)
                with e.loop(first, last) as row:
                    self._resume(row - first)
                    self._count(rows, row, word, STEPS)
                    self._suspend(row - first)
        left = self.depth - self._parts * BITS
        self._make(lanes, at, self._parts, left)
        stops = self._stops(lane, parts)
        with e.loop(first, last) as row:
            self._resume(row - first)
            self._count(rows, row, self._parts, steps_of(left))
            self._transpose()
            for (begin, end), (_, finish) in zip(pairwise(stops), parts, strict=True):
                with e.loop(begin, end) as group:
                    sums = e.cast("int32", e.load(self._values, group * HALF, HALF), HALF)
                    finish(row, e.let(lane + group * HALF), [sums])

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
            loaded = e.load(lanes, block + (word * BITS + bit) * stride, 4 * vector)
            return e.let(self._as("uint64", loaded))

        def step(number: Any, x: Any, y: Any) -> None:
            a = e.let(e.load(self._table, self._parity, vector))
            at = number * (PATTERNS * vector)
            for pattern, truth in _MAJORITY.items():
                carry = e.let(self._logic(a, x, y, truth))
                e.store(self._table, at + pattern * vector, carry, vector)
                e.store(self._table, at + (pattern ^ 5) * vector, T.bitwise_not(carry), vector)
            e.store(self._table, self._parity, self._logic(a, x, y, _SUM), vector)

        with e.loop(0, bits // 2) as number:
            step(number, lane(2 * number), lane(2 * number + 1))
        zero = e.constant("uint64", 0, vector)
        for number in range(bits // 2, steps_of(bits)):
            step(number, lane(2 * number) if 2 * number < bits else zero, zero)
        parity = e.load(self._table, self._parity, vector)
        e.store(self._table, self._parity + vector, T.bitwise_not(parity), vector)

    # Counting.

    def _count(self, rows: Any, row: Any, word: Any, steps: int) -> None:
        """Add up to 64 bits of a row."""
        e, vector = self.emitter, self._vector
        q = self._parities(rows, row, word, 2 * steps)
        before = self._fixed(self._before[0])
        q = self._fixed(T.bitwise_xor(q, before))

        def entry(step: int) -> Any:
            if step:
                three = T.shift_right(q, T.uint64(2 * step - 1))
            else:
                one = T.bitwise_and(before, T.uint64(1))
                three = T.bitwise_or(T.shift_left(q, T.uint64(1)), one)
            pattern = e.cast("int64", T.bitwise_and(three, T.uint64(PATTERNS - 1)))
            index = pattern * vector + T.int64(step * PATTERNS * vector)
            return e.let(e.load(self._table, index, vector))

        def count(step: int, level: int) -> Any:
            if level == 0:
                return entry(step)
            x = count(step, level - 1)
            y = count(step + (1 << (level - 1)), level - 1)
            return self._add(level, x, y)

        done = 0
        for level in range(STEPS.bit_length() - 1, 1, -1):
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
