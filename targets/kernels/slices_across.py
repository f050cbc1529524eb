"""The slices tile in short vectors: several side by side, so that what finds an entry serves all.

Instruction set: NEON of 64-bit ARM; 32 registers of 16 bytes. Tile: one row against up to three
vectors of 128 lanes. Layouts: `rows`, and `slices` whose vectors have planes of their own.

Sums are those of vitc.targets.kernels.slices_tile, in its order of steps but for this: a vector of
128 lanes would want as many instructions for an index as for an adder. So the table is made for
up to three vectors, and the entries of two steps are found by one AND: three bits of the row's
prefix parities and the three that lie 32 bits higher become two offsets in one register.

Sums are counted from -K/2 on, rounded down, instead of zero: numbers then have a sign, which
widens bytes to words and leaves an epilogue nothing to subtract.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from tvm.script.ir_builder import tirx as T

from vitc.targets.isa import Isa
from vitc.targets.kernels.emitter import HALF, Emitter
from vitc.targets.kernels.slices import (
    BITS,
    PATTERNS,
    STEPS,
    Finish,
    SliceSums,
    slice_blocks,
    steps_of,
)
from vitc.targets.kernels.slices_tile import SlicesProduct
from vitc.targets.packing import WORD

__all__ = ["SlicesAcross", "slices_product"]

_BYTES = 16
_LANES = 8 * _BYTES
_WORDS = {1: 6, 2: 3, 3: 2}
"""Words of 64 bits whose tables are made at once, by vectors: 24 KiB, for a cache of 32."""
_LOG = {1: 9, 2: 10, 3: 11}
"""Of the bytes from one pattern of a word's table to the next: 32 steps, the third vectors behind
the pairs of all steps, where an offset in the instruction reaches them."""
_PAIRS = [place for pair in range(_BYTES) for place in (pair, pair + _BYTES)]
"""The bytes of two vectors, one from each in turn."""
_NEAR = STEPS.bit_length() - 1
"""Slices that have registers: those to which steps of a word are added. To others comes one carry a
word, so that they are as well where they are kept."""
_TOGETHER = 64
"""Lanes that are finished together where parts and blocks are multiples of them."""
_SPAN = 100
"""Most rows whose slices lie on the stack, as in slices."""


@dataclass
class SlicesAcross(SliceSums):
    """Emits sums of all blocks of lanes, row by row; see the module.

    Attributes:
        turned: As for `slices_product`.
    """

    turned: bool = False

    def __post_init__(self) -> None:
        e = self.emitter
        self._blocks, self._width = slice_blocks(self.isa, self.lanes)
        self._vectors = -(-self._width // _LANES)
        self._levels = self.depth.bit_length()
        self._full, self._left = divmod(self.depth, BITS)
        self.centre = -(-self.depth // 2)
        most = _WORDS[self._vectors]
        words = self._full + bool(self._left)
        self._parts = -(-words // most)
        self._words = min(most, words)
        """Words of a part."""
        self._word_bytes = PATTERNS << _LOG[self._vectors]
        self._table = e.scratch("uint8", self._words * self._word_bytes)
        self._number = "int8" if self._levels <= 8 else "int16"
        several = self._blocks * self._width > self.lanes
        self._values = (e.scratch if several else e.local)(
            self._number, self._vectors * _LANES + HALF
        )
        self._near = min(_NEAR, self._levels - 1)
        # In front of the slices, in place of that of weight 1, are the parities of the last bits.
        self._state = self._levels * self._vectors * _BYTES
        self._span = _SPAN
        # Elements from one bit of the lanes to the next.
        self._stride = (self.lanes if self.turned else self._width) // HALF
        self._kept: Any = e.scratch("uint8", self._state * (_SPAN if self._parts > 1 else 1))

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
        block = T.truncdiv(lane, T.int32(HALF))
        block = e.let(block if self.turned else block * self.depth)
        # Not known to LLVM, which would make a shift and an AND of one instruction.
        sign = e.cast("uint64", T.shift_right(e.begin, T.int32(31)))
        field = (PATTERNS - 1) << _LOG[self._vectors]
        self._fields = self._fixed(T.bitwise_xor(T.uint64(field << WORD | field), sign))
        self._parity = e.local("uint8", self._vectors * _BYTES)
        for v in range(self._vectors):
            e.store(self._parity, v * _BYTES, self._first(0), _BYTES)
        stops = self._stops(lane, parts)
        regular = self._parts
        if self._left or self._full % self._words:
            regular -= 1

        def add(part: Any, words: int, left: int, end: Callable[[Any], None]) -> None:
            begin = e.let(part * self._words)
            self._make(lanes, block, begin, words, left)
            with e.loop(first, last) as row:
                self._resume(row - first, part)
                self._ripple_all(
                    [self._count(rows, row, begin + word, word, BITS) for word in range(words)]
                )
                if left:
                    self._ripple(self._count(rows, row, begin + words, words, left))
                end(row)

        def finish(row: Any) -> None:
            self._finish(row, lane, stops, parts)

        if regular == self._parts > 1:
            with e.loop(0, regular) as part:

                def finish_last(row: Any) -> None:
                    with T.If(part < regular - 1):
                        with T.Then():
                            self._suspend()
                        with T.Else():
                            finish(row)

                add(part, self._words, 0, finish_last)
            return
        if self._parts > 1:
            with e.loop(0, regular) as part:
                add(part, self._words, 0, lambda _: self._suspend())
        done = (self._parts - 1) * self._words
        add(T.int32(self._parts - 1), self._full - done, self._left, finish)

    # The slices of a row, and the parities of its last bits.

    def _resume(self, row: Any, part: Any) -> None:
        e = self.emitter
        size = self._vectors * _BYTES
        self._slices = e.local("uint8", (_NEAR + 1) * size)
        self._before = e.local("uint64", 1)
        kept = row * self._state if self._parts > 1 else 0
        self._far = self._from(self._kept, kept)
        for level in range(1, self._near + 1):
            for v in range(self._vectors):
                e.store(self._slices, level * size + v * _BYTES, self._first(level), _BYTES)
        e.store(self._before, 0, e.constant("uint64", 0))
        if self._parts == 1:
            self._clear()
            return

        with T.If(part > 0):
            with T.Then():
                for place in range(size, (self._near + 1) * size, _BYTES):
                    e.store(self._slices, place, e.load(self._far, place, _BYTES), _BYTES)
                before = e.load(self._far, 0, 8)
                e.store(self._before, 0, T.call_intrin("uint64", "tirx.reinterpret", before))
            with T.Else():
                self._clear()

    def _clear(self) -> None:
        """Set the slices that have no register."""
        for level in range(self._near + 1, self._levels):
            for v in range(self._vectors):
                self._put(level, v, self._first(level))

    def _first(self, level: int) -> Any:
        """What a slice is before anything is added: a bit of minus the centre in all lanes."""
        return self.emitter.constant("uint8", 0xFF if -self.centre >> level & 1 else 0, _BYTES)

    def _suspend(self) -> None:
        e = self.emitter
        size = self._vectors * _BYTES
        for place in range(size, (self._near + 1) * size, _BYTES):
            e.store(self._far, place, e.load(self._slices, place, _BYTES), _BYTES)
        before = T.call_intrin("uint8x8", "tirx.reinterpret", self._before[0])
        e.store(self._far, 0, before, 8)

    def _slice(self, level: int, v: int) -> Any:
        where = self._slices if level <= self._near else self._far
        return self.emitter.load(where, (level * self._vectors + v) * _BYTES, _BYTES)

    def _put(self, level: int, v: int, value: Any) -> None:
        where = self._slices if level <= self._near else self._far
        self.emitter.store(where, (level * self._vectors + v) * _BYTES, value, _BYTES)

    # The table.

    def _make(self, lanes: Any, block: Any, begin: Any, words: int, left: int) -> None:
        """Make the tables of whole words, and of the bits that are left."""
        e = self.emitter

        def make(word: Any, number: Any, bits: int) -> None:
            bit = e.let(block + word * (BITS * self._stride))
            table = self._word(number)
            with e.loop(0, bits // 2) as step:
                self._step(lanes, bit, table, step, 2)
            for step in range(bits // 2, steps_of(bits)):
                self._step(lanes, bit, table, step, bits - 2 * step)

        with e.loop(0, words) as word:
            make(begin + word, word, BITS)
        if left:
            make(begin + words, words, left)

    def _word(self, number: Any) -> Any:
        """The table of a word."""
        return self._from(self._table, number * self._word_bytes)

    def _from(self, buffer: Any, index: Any) -> Any:
        """A buffer from an index on: what is added to that is then part of an instruction."""
        place = T.bind(T.address_of(buffer[index]))
        return T.decl_buffer((self._word_bytes,), "uint8", data=place, scope="local")

    def _entry(self, step: Any, v: int) -> Any:
        """Place of the entry of a step for a vector, behind that of its pattern."""
        if v == 2:
            return STEPS * 2 * _BYTES + step * _BYTES
        return step * (min(self._vectors, 2) * _BYTES) + v * _BYTES

    def _step(self, lanes: Any, block: Any, table: Any, step: Any, bits: int) -> None:
        """Make the entries of two bits, of which there may be none."""
        e = self.emitter
        apart = 1 << _LOG[self._vectors]
        zero = e.constant("uint8", 0, _BYTES)

        def lane(v: int, bit: int) -> Any:
            if bit >= bits:
                return zero
            at = block + (2 * step + bit) * self._stride + v * (_BYTES // 2)
            return e.let(self._as("uint8", e.load(lanes, at, _BYTES // 2)))

        made: dict[int, list[Any]] = {0: [], 7: [], 6: [], 4: []}
        for v in range(self._vectors):
            a = e.let(e.load(self._parity, v * _BYTES, _BYTES))
            x, y = lane(v, 0), lane(v, 1)
            both, ax = e.let(T.bitwise_xor(x, y)), e.let(T.bitwise_xor(a, x))
            carry = e.let(T.bitwise_xor(x, T.bitwise_and(both, ax)))
            # Of a row that turns nothing, a, x or y round, by the three parities that say so: what
            # is turned decides where the others differ. All three turned round, the parities
            # XOR 5, complement the carry.
            differ = {0: None, 7: both, 6: T.bitwise_xor(a, y), 4: ax}
            for pattern, where in differ.items():
                turned = carry if where is None else e.let(T.bitwise_xor(carry, where))
                made[pattern].append(turned)
            e.store(self._parity, v * _BYTES, T.bitwise_xor(a, both), _BYTES)
        for pattern, carries in made.items():
            for v, carry in enumerate(carries):
                at = self._entry(step, v)
                e.store(table, at + pattern * apart, carry, _BYTES)
            for v, carry in enumerate(carries):
                at = self._entry(step, v)
                e.store(table, at + (pattern ^ 5) * apart, T.bitwise_not(carry), _BYTES)

    # Counting.

    def _count(self, rows: Any, row: Any, word: Any, in_part: Any, bits: int) -> list[Any]:
        """Add up to 64 bits of a row; return the carries of weight 64 that all 32 steps have."""
        e = self.emitter
        q = self._parities(rows, row, word, bits)
        before = self._fixed(self._before[0])
        sign = T.shift_right(e.cast("int64", before), T.int64(63))
        q = self._fixed(T.bitwise_xor(q, e.cast("uint64", sign)))
        e.store(self._before, 0, q)
        ahead = T.bitwise_or(T.shift_left(q, T.uint64(1)), T.shift_right(before, T.uint64(63)))
        ahead = self._fixed(ahead)
        table = self._word(in_part)
        log = _LOG[self._vectors]

        def offsets(step: int) -> list[Any]:
            """Of this step and of that half a word later."""
            bit = 2 * step - 1
            if not step:
                moved = T.shift_left(ahead, T.uint64(log))
            elif bit < log:
                moved = T.shift_left(q, T.uint64(log - bit))
            else:
                moved = T.shift_right(q, T.uint64(bit - log))
            two = self._fixed(T.bitwise_and(moved, self._fields))
            low = e.cast("int64", e.cast("uint32", two))
            return [low, e.cast("int64", T.shift_right(two, T.uint64(WORD)))]

        def entry(step: int, offset: Any) -> list[Any]:
            return [
                e.let(e.load(table, offset + T.int64(self._entry(step, v)), _BYTES))
                for v in range(self._vectors)
            ]

        steps = steps_of(bits)
        half = STEPS // 2

        def leaf(number: int) -> tuple[list[Any], list[Any]]:
            if steps == STEPS:
                low, high = offsets(number)
                return entry(number, low), entry(number + half, high)
            found = [offsets(step % half)[step // half] for step in (2 * number, 2 * number + 1)]
            return entry(2 * number, found[0]), entry(2 * number + 1, found[1])

        def count(number: int, level: int) -> list[Any]:
            if level == 1:
                return self._add(1, *leaf(number))
            x = count(number, level - 1)
            y = count(number + (1 << (level - 2)), level - 1)
            return self._add(level, x, y)

        done = 0
        for level in range(STEPS.bit_length() - 1, 1, -1):
            if steps & 1 << level:
                carry = count(done, level)
                done += 1 << (level - 1)
                if steps == STEPS:
                    return carry
                self._ripple(carry, level + 1)
        return []

    def _ripple(self, carry: list[Any], level: int = STEPS.bit_length()) -> None:
        """Add vectors to a slice, and what is carried to those above; there may be none."""
        for above in range(level, self._levels if carry else 0):
            carry = self._add(above, carry)

    def _ripple_all(self, carries: list[list[Any]]) -> None:
        """Add the carries of words, two at a time as far as they go."""
        level = STEPS.bit_length()
        while carries and level < self._levels:
            pairs = range(0, len(carries), 2)
            carries = [self._add(level, *carries[pair : pair + 2]) for pair in pairs]
            level += 1

    def _add(self, level: int, x: list[Any], y: list[Any] | None = None) -> list[Any]:
        """Add one or two lots of vectors to a slice; returns the carries."""
        e = self.emitter
        if level >= self._levels:
            return x
        carries = []
        for v in range(self._vectors):
            old = e.let(self._slice(level, v))
            if y is None:
                new = T.bitwise_xor(old, x[v])
                carry = T.bitwise_and(old, x[v])
            else:
                both = e.let(T.bitwise_xor(x[v], y[v]))
                new = T.bitwise_xor(old, both)
                carry = e.select(both, old, x[v])
            carries.append(e.let(carry))
            self._put(level, v, new)
        return carries

    # Numbers.

    def _finish(
        self, row: Any, lane: Any, stops: Sequence[Any], parts: Sequence[tuple[int, Finish]]
    ) -> None:
        """Make numbers of the slices of a row, and emit what becomes of them."""
        e = self.emitter
        for v in range(self._vectors):
            self._transpose(v)
        whole = all(count % _TOGETHER == 0 for count in (self._width, *(n for n, _ in parts)))
        size = _TOGETHER if whole else HALF
        for (begin, end), (_, finish) in zip(pairwise(stops), parts, strict=True):
            with e.loop(T.truncdiv(begin, size // HALF), T.truncdiv(end, size // HALF)) as number:
                first = number * size
                sums = [
                    e.cast("int32", e.load(self._values, first + more, HALF), HALF)
                    for more in range(0, size, HALF)
                ]
                finish(row, e.let(lane + first), sums)

    def _transpose(self, v: int) -> None:
        """Make numbers of a vector's slices."""
        e = self.emitter

        def const(value: int) -> Any:
            return e.constant("uint8", value, _BYTES)

        odd = e.cast("uint64", T.shift_right(e.cast("int64", self._before[0]), T.int64(63)))
        turned = self._as("uint8", e.splat(odd, 2))
        first = T.bitwise_xor(e.load(self._parity, v * _BYTES, _BYTES), turned)
        above = [self._slice(level, v) for level in range(1, self._levels)]
        slices = [e.let(value) for value in (first, *above)]
        # Numbers of fewer bits than a byte repeat their sign.
        planes = [*slices, *[slices[-1]] * 8][:8]
        for distance, mask in ((1, 0x55), (2, 0x33), (4, 0x0F)):
            for i in range(8):
                if i & distance:
                    continue
                a, b = planes[i], planes[i + distance]
                up, down = T.shift_left(b, const(distance)), T.shift_right(a, const(distance))
                planes[i] = e.let(e.select(const(mask), a, up))
                planes[i + distance] = e.let(e.select(const(mask), down, b))
        lanes = min(self._width - v * _LANES, _LANES) // 8
        high = [self._high(slices, i) for i in range(8 if self._levels > 8 else 0)]
        if self.turned:
            planes, high = _mixed(planes), _mixed(high)
        for i, plane in enumerate(planes):
            # Planes that lanes do not fill end in garbage, over which the next are stored.
            at = v * _LANES + i * lanes
            numbers = self._as("int8", plane)
            if high:
                numbers = T.Shuffle([plane, high[i]], _PAIRS)
                numbers = T.call_intrin(f"int16x{_BYTES}", "tirx.reinterpret", numbers)
            e.store(self._values, at, numbers, _BYTES)

    def _high(self, slices: Sequence[Any], i: int) -> Any:
        """The upper bytes of the numbers of a plane, which have a sign."""
        e = self.emitter

        def const(value: int) -> Any:
            return e.constant("uint8", value, _BYTES)

        sign = T.bitwise_and(slices[-1], const(1 << i))
        high = e.let(T.Select(sign != const(0), const(0xFF), const(0)))
        for weight, bits in enumerate(slices[8:-1]):
            shift = T.shift_right if i > weight else T.shift_left
            moved = shift(bits, const(abs(i - weight)))
            high = e.let(e.select(const(1 << weight), moved, high))
        return high

    def _as(self, dtype: str, value: Any) -> Any:
        return T.call_intrin(f"{dtype}x{_BYTES}", "tirx.reinterpret", value)


def slices_product(
    emitter: Emitter, isa: Isa, lanes: int, depth: int, words: int, *, turned: bool = False
) -> SliceSums:
    """The tile of an instruction set, with the attributes of `SliceSums`.

    Args:
        emitter: Where the code goes.
        isa: Vectors.
        lanes: Lanes.
        depth: Bits of a row.
        words: 32-bit words of a packed row.
        turned: Whether lanes lie as rows of a bit of each, side by side as they are numbered; only
            of vectors that are full.
    """
    if isa.slice_vectors > 1:
        return SlicesAcross(emitter, isa, lanes, depth, words, turned)
    return SlicesProduct(emitter, isa, lanes, depth, words)


def _mixed(planes: Sequence[Any]) -> list[Any]:
    """Bytes of vectors, one from each in turn: what lies in planes, as lanes are numbered."""
    if len(planes) < 2:
        return list(planes)
    even, odd = _mixed(planes[::2]), _mixed(planes[1::2])
    halves = (_PAIRS[:_BYTES], _PAIRS[_BYTES:])
    pairs = list(zip(even, odd, strict=True))
    return [T.bind(T.Shuffle(pair, half)) for pair in pairs for half in halves]
