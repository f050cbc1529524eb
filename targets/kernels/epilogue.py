"""Epilogues of binary linear products: what becomes of 16 finished sums of one row.

Instruction set: any. Tile: 16 lanes. All engines, popcounts, bit slices and AMX tiles, end here.

Popcounts and slices give p - K/2 with p = popcount(a XOR w), tiles give I = K - 2p. So the
threshold `scale * I >= offset + upper` is evaluated as `value * factor scale >= offset + upper`
with a factor of -2 or 1 that is part of the constant. Both values are exact in fp32 and neither
factor rounds, so both sides have the bits of the dialect's expression. Neither side multiplies and
adds, so nothing can be contracted.

The lanes hold outputs (a linear layer) or positions (the spatial interaction branch). Where bits
must run along the rows of a tile, one bit a row is shifted into the lane's element; no bit matrix
is transposed here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tvm.script.ir_builder import tirx as T

from vitc.targets.isa import Isa
from vitc.targets.kernels.emitter import HALF, Emitter, mask_bits
from vitc.targets.packing import WORD, Axis, round_up

__all__ = [
    "Columns",
    "Constants",
    "Keys",
    "Lanes",
    "Residual",
    "Rows",
    "RowsOfColumns",
    "Scaled",
    "finish_all",
]


class _Epilogue(Protocol):
    @property
    def constants(self) -> Constants: ...

    def finish(self, row: Any, lanes: Lanes, value: Any) -> None: ...


def finish_all(epilogue: _Epilogue, row: Any, first: Any, values: Sequence[Any]) -> None:
    """Emit the epilogue of some times 16 lanes of one row, from one on."""
    if isinstance(epilogue, Rows) and len(values) == 4:
        epilogue.finish_four(row, first, values)
        return
    for number, value in enumerate(values):
        epilogue.finish(row, epilogue.constants.lanes(first + number * HALF), value)


@dataclass(frozen=True)
class Lanes:
    """16 lanes of the vector operand.

    Attributes:
        first: Number of the first lane.
        base: Index of the first position of their group, among the constants of positions.
        vectors: Constants that follow the lanes, by name.
    """

    first: Any
    base: Any
    vectors: dict[str, Any]


@dataclass(frozen=True)
class Constants:
    """The constants of outputs and of positions.

    Attributes:
        emitter: Where the code goes.
        buffers: Arguments of the kernel, by name.
        outputs: Names of the constants that follow the outputs.
        positions: Names of those that follow the positions.
        transposed: Positions fill the lanes and outputs are broadcast.
        group: Outputs by group, when constants of positions differ by group.
        stride: Positions of one group, padding included.
        period: Positions of a window, where windows share their constants; 0 for one window.
    """

    emitter: Emitter
    buffers: dict[str, Any]
    outputs: tuple[str, ...]
    positions: tuple[str, ...]
    transposed: bool
    group: Axis | None = None
    stride: int = 0
    period: int = 0

    def lanes(self, first: Any, *, ahead: bool = False) -> Lanes:
        """Constants of 16 lanes; loaded here and now if `ahead`, else where they are used."""
        e = self.emitter
        base: Any = 0
        if self.group is not None:
            base = T.floordiv(first, self.group.padded_group) * self.stride
            base = e.let(base) if ahead else base
        vectors = {}
        at = self._place(first) if self.transposed else first
        for name in self.positions if self.transposed else self.outputs:
            vector = e.load(self.buffers[name], at, HALF)
            vectors[name] = e.let(vector) if ahead else vector
        return Lanes(first, base, vectors)

    def vector(self, name: str, row: Any, lanes: Lanes) -> Any:
        """One constant of 16 lanes of a row."""
        if name in lanes.vectors:
            return lanes.vectors[name]
        index = row if self.transposed else lanes.base + self._place(row)
        index = row if name in self.outputs else index
        return self.emitter.splat(self.buffers[name][index], HALF)

    def _place(self, position: Any) -> Any:
        """The place of a position in its window."""
        return self.emitter.split(position, self.period)[1] if self.period else position

    def decide(self, row: Any, lanes: Lanes, value: Any) -> Any:
        """Vector of booleans: the dialect's threshold."""
        scale, offset, upper = (self.vector(n, row, lanes) for n in ("scale", "offset", "upper"))
        product = value * scale
        above = product >= offset + upper
        if "lower" not in self.positions:
            return above
        return T.bitwise_or(above, product <= offset + self.vector("lower", row, lanes))


@dataclass(frozen=True)
class Rows:
    """Bits along the lanes, in rows layout.

    Attributes:
        constants: Thresholds.
        halves: 16-bit elements of an output row.
    """

    constants: Constants
    halves: int

    def finish(self, row: Any, lanes: Lanes, value: Any) -> None:
        """Emit the epilogue of 16 lanes of one row."""
        e = self.constants.emitter
        bits = e.let(mask_bits(self.constants.decide(row, lanes, value)))
        index = row * self.halves + T.floordiv(lanes.first, HALF)
        e.store(self.constants.buffers["out"], index, bits)

    def finish_four(self, row: Any, first: Any, values: Sequence[Any]) -> None:
        """Emit the epilogue of 64 lanes, whose bits are made by adding neighbours."""
        constants, e = self.constants, self.constants.emitter
        bits = []
        for number, value in enumerate(values):
            decided = constants.decide(row, constants.lanes(first + number * HALF), value)
            power = T.shift_left(
                e.constant("uint8", 1, HALF),
                T.bitwise_and(T.Ramp(T.uint8(0), T.uint8(1), HALF), e.constant("uint8", 7, HALF)),
            )
            # Negative ones, or LLVM would know that none has a bit of another: it would not add.
            zero = e.constant("uint8", 0, HALF)
            bits.append(e.let(T.Select(decided, zero - power, zero)))

        def added(a: Any, b: Any) -> Any:
            pairs = [T.Shuffle([a, b], [*range(odd, 2 * HALF, 2)]) for odd in (0, 1)]
            return e.let(pairs[0] + pairs[1])

        quarters = added(added(bits[0], bits[1]), added(bits[2], bits[3]))
        words = T.call_intrin("uint16x8", "tirx.reinterpret", zero - added(quarters, quarters))
        low = T.Shuffle([words], [*range(4)])
        index = row * self.halves + T.floordiv(first, HALF)
        e.store(constants.buffers["out"], index, low, 4)


@dataclass(frozen=True)
class Keys:
    """Bits along the lanes, stored where the lanes layout of a head's keys wants them.

    Attributes:
        constants: Thresholds.
        isa: Instruction set.
        rows: Keys of a window.
        head: Outputs by head.
        windows: Windows of keys.
    """

    constants: Constants
    isa: Isa
    rows: int
    head: Axis
    windows: int = 1

    def finish(self, row: Any, lanes: Lanes, value: Any) -> None:
        """Emit the epilogue of 16 lanes of one row."""
        e = self.constants.emitter
        bits = e.let(mask_bits(self.constants.decide(row, lanes, value)))
        if self.windows == 1:
            self._store(row, lanes.first, bits)
            return
        # What a tile has behind the last row would be another window's.
        with T.If(row < self.windows * self.rows), T.Then():
            self._store(row, lanes.first, bits)

    def _store(self, row: Any, lane: Any, bits: Any) -> None:
        e, isa, head = self.constants.emitter, self.isa, self.head
        out = self.constants.buffers["out"]
        key_blocks = round_up(self.rows, isa.lanes) // isa.lanes
        elements = head.padded_group // isa.element_bits
        in_head = T.floormod(lane, head.padded_group)
        matrix = T.floordiv(lane, head.padded_group)
        if self.windows > 1:
            window, row = e.split(row, self.rows)
            matrix = window * head.groups + matrix
        block = matrix * key_blocks + T.floordiv(row, isa.lanes)
        slot = T.floormod(row, isa.lanes)
        if isa.element_bits == WORD:
            word = block * elements + T.floordiv(in_head, WORD)
            half = T.floordiv(T.floormod(in_head, WORD), HALF)
            e.store(out, (word * isa.lanes + slot) * 2 + half, bits)
            return
        for byte in range(2):
            element = block * elements + T.floordiv(in_head, 8) + byte
            part = T.bitwise_and(T.shift_right(bits, T.uint16(8 * byte)), T.uint16(255))
            e.store(out, element * isa.lanes + slot, e.cast("uint8", part))


@dataclass
class Columns:
    """Bits along the rows, in lanes layout.

    Attributes:
        constants: Thresholds.
        isa: Instruction set.
        elements: Elements of one lane of the output.
        blocks: Lane blocks whose elements are filled at once.
    """

    constants: Constants
    isa: Isa
    elements: int
    blocks: int
    _filling: Any = field(init=False)

    def begin(self) -> None:
        """Emit empty elements, one for each lane."""
        e, isa = self.constants.emitter, self.isa
        self._filling = e.local(isa.element, self.blocks * isa.lanes)
        for block in range(self.blocks):
            empty = e.constant(isa.element, 0, isa.lanes)
            e.store(self._filling, block * isa.lanes, empty, isa.lanes)

    def finish(self, row: Any, lanes: Lanes, value: Any, slot: int, bit: Any) -> None:
        """Emit the epilogue of 16 lanes of one row.

        Args:
            row: The row.
            lanes: The lanes.
            value: Sums.
            slot: Place of the lanes among those of the blocks.
            bit: Element with the bit of the row set, or 0 for a row behind the last.
        """
        e, element = self.constants.emitter, self.isa.element
        decided = self.constants.decide(row, lanes, value)
        one = T.Select(decided, e.splat(bit, HALF), e.constant(element, 0, HALF))
        e.store(self._filling, slot, T.bitwise_or(e.load(self._filling, slot, HALF), one), HALF)

    def end(self, first_block: Any, element: Any) -> None:
        """Emit the stores of the filled elements."""
        e, lanes = self.constants.emitter, self.isa.lanes
        for block in range(self.blocks):
            index = ((first_block + block) * self.elements + element) * lanes
            for half in range(0, lanes, HALF):
                part = e.load(self._filling, block * lanes + half, HALF)
                e.store(self.constants.buffers["out"], index + half, part, HALF)

    def clear(self, first_block: Any, start: int) -> None:
        """Emit zeros for the elements from `start` on, which no row fills."""
        e, isa = self.constants.emitter, self.isa
        for element in range(start, self.elements):
            for block in range(self.blocks):
                index = ((first_block + block) * self.elements + element) * isa.lanes
                empty = e.constant(isa.element, 0, isa.lanes)
                e.store(self.constants.buffers["out"], index, empty, isa.lanes)


@dataclass(frozen=True)
class RowsOfColumns:
    """Bits along the rows, in lanes layout, row by row: each row adds its bit to the elements.

    Attributes:
        constants: Thresholds.
        isa: Instruction set.
        rows: Rows of a window.
        blocks: Lane blocks of a window.
        windows: Windows.
    """

    constants: Constants
    isa: Isa
    rows: int
    blocks: int
    windows: int = 1

    @property
    def _elements(self) -> int:
        """Elements of one lane of the output."""
        return round_up(self.rows, WORD) // self.isa.element_bits

    def clear(self, begin: Any, end: Any, tasks: int) -> None:
        """Emit zeros for what the rows of some tasks are added to.

        Args:
            begin: First task: an element of each lane, or a window where there are several.
            end: The task behind the last.
            tasks: Tasks in all; the last one has the elements that no row fills, too.
        """
        e, lanes = self.constants.emitter, self.isa.lanes
        out, empty = self.constants.buffers["out"], e.constant(self.isa.element, 0, lanes)
        if self.windows > 1:
            size = self.blocks * self._elements
            with e.loop(begin * size, end * size) as number:
                e.store(out, number * lanes, empty, lanes)
            return
        behind = e.let(T.Select(T.EQ(end, tasks), T.int32(self._elements), end))
        with e.loop(0, self.blocks) as block, e.loop(begin, behind) as element:
            e.store(out, (block * self._elements + element) * lanes, empty, lanes)

    def finish(self, row: Any, lanes: Lanes, value: Any) -> None:
        """Emit the epilogue of 16 lanes of one row."""
        e, isa = self.constants.emitter, self.isa
        decided = self.constants.decide(row, lanes, value)
        block: Any = T.floordiv(lanes.first, isa.lanes)
        if self.windows > 1:
            window, row = e.split(row, self.rows)
            block = window * self.blocks + block
        element = block * self._elements + T.floordiv(row, isa.element_bits)
        place = e.cast(isa.element, T.floormod(row, isa.element_bits))
        bit = T.shift_left(e.constant(isa.element, 1), place)
        one = T.Select(decided, e.splat(bit, HALF), e.constant(isa.element, 0, HALF))
        at = element * isa.lanes + T.floormod(lanes.first, isa.lanes)
        out = self.constants.buffers["out"]
        e.store(out, at, T.bitwise_or(e.load(out, at, HALF), one), HALF)


@dataclass(frozen=True)
class Residual:
    """The residual stream plus `gain * (scale * I + bias)`, fp32.

    Attributes:
        constants: Scale, bias and gain; rows are written through `order` if there is one.
        stride: Floats from one row of the stream to the next.
        rows: Rows of a window, where its lanes are written one window after the other; 0 for one
            window.
    """

    constants: Constants
    stride: int
    rows: int = 0

    def finish(self, row: Any, lanes: Lanes, value: Any) -> None:
        """Emit the epilogue of 16 lanes of one row."""
        if not self.rows:
            self._add(row, lanes, value, row, lanes.first)
            return
        wide = self.constants.period or self.stride
        window, channel = self.constants.emitter.split(lanes.first, wide)
        # What a tile has behind the last row would be another window's; so would lanes be that fill
        # the last block.
        inside = row < self.rows
        if wide > self.stride:
            inside = T.And(inside, channel < self.stride)
        with T.If(inside), T.Then():
            self._add(row, lanes, value, window * self.rows + row, channel)

    def _add(self, row: Any, lanes: Lanes, value: Any, place: Any, channel: Any) -> None:
        constants = self.constants
        e, buffers = constants.emitter, constants.buffers
        scale = constants.vector("scale", row, lanes)
        added = value * scale + constants.vector("bias", row, lanes)
        if "gain" in constants.positions:
            added = added * constants.vector("gain", row, lanes)
        if "order" in buffers:
            place = e.let(buffers["order"][place])
        index = place * self.stride + channel
        e.store(buffers["out"], index, e.load(buffers["residual"], index, HALF) + added, HALF)


@dataclass(frozen=True)
class Scaled:
    """`scale * I + bias`, fp32, behind which other floats follow.

    Attributes:
        constants: Scale and bias.
        stride: Floats from one row of the result to the next.
    """

    constants: Constants
    stride: int

    def finish(self, row: Any, lanes: Lanes, value: Any) -> None:
        """Emit the epilogue of 16 lanes of one row."""
        constants, e = self.constants, self.constants.emitter
        scaled = value * constants.vector("scale", row, lanes)
        result = scaled + constants.vector("bias", row, lanes)
        e.store(constants.buffers["out"], row * self.stride + lanes.first, result, HALF)
