"""Binary attention of one head: scores, masks, masks times signs, threshold, for a tile of queries.

Instruction set: any. Tile: Isa.row_tile queries against Isa.lane_tile blocks of keys, then of
values. Layouts: queries as rows, keys and values (along tokens) as lanes, context as rows with
every head padded to a multiple of 32 bits. Distances and masks of a tile stay on the stack.

Softmax and its threshold of a quarter of the maximum vanish (Hamming distance <= row minimum +
slack). With signs v and mask A, A v = 2 popcount(A & v) - popcount(A) = popcount(v) - popcount(A
XOR v), so both products count differing bits; popcount(v) is counted once a head, and neither
popcount(A) nor AND is needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tvm.script.ir_builder import tirx as T

from vitc.targets.isa import Isa
from vitc.targets.kernels.emitter import HALF, Emitter, Kernel, mask_bits
from vitc.targets.kernels.popcount_tile import PopcountTile, nibble_table
from vitc.targets.packing import WORD, Axis, round_up

__all__ = ["MAX_BYTE_DISTANCE", "AttentionShape", "attention_kernel"]

MAX_BYTE_DISTANCE = 240
"""Largest head width whose distance plus slack fits 8-bit lanes."""

MAX_NARROW_KEYS = 1 << 14
"""Keys up to which masks times signs, and their thresholds, fit 16-bit lanes."""


@dataclass(frozen=True)
class AttentionShape:
    """Geometry of one attention layer.

    Attributes:
        queries: Queries of a head.
        keys: Keys of a head, and values.
        head: Heads and their width.
        slack: Hamming distance above the row minimum that is still attended.
    """

    queries: int
    keys: int
    head: Axis
    slack: int


def attention_kernel(symbol: str, isa: Isa, shape: AttentionShape) -> Kernel:
    """Build the attention kernel.

    Arguments of the C function: queries, keys, values, threshold (int32, one a query, at most
    keys + 1 in magnitude), out, begin, end. Queries, thresholds and out have rows padded to
    `ROW_PADDING`.

    Args:
        symbol: Name of the C function.
        isa: Instruction set.
        shape: Geometry.

    Returns:
        The kernel. Its tasks are pairs of a head and a tile of queries.
    """
    emitter = Emitter(symbol)
    with emitter.open() as e:
        queries, keys, values, threshold, out = e.pointers(
            queries=isa.element,
            keys=isa.element,
            values=isa.element,
            threshold="int32",
            out="uint16",
        )
        tile = _QueryTile(e, isa, shape)
        tiles = round_up(shape.queries, isa.row_tile) // isa.row_tile
        with e.loop(T.floordiv(e.begin, tiles), T.floordiv(e.end + (tiles - 1), tiles)) as head:
            tile.count_values(values, head)
            first_task, stop = e.let(e.begin - head * tiles), e.let(e.end - head * tiles)
            with e.loop(T.max(first_task, 0), T.min(stop, tiles)) as task:
                first = e.let(task * isa.row_tile)
                limits = tile.measure(queries, keys, head, first)
                tile.choose(limits)
                tile.attend(values, threshold, out, head, first)
    tasks = shape.head.groups * tiles
    return emitter.kernel(tasks, **{unit: tasks * each for unit, each in tile.work().items()})


class _QueryTile:
    """Emits the steps of one tile of queries, and holds their buffers on the stack."""

    def __init__(self, emitter: Emitter, isa: Isa, shape: AttentionShape) -> None:
        self.emitter, self.isa, self.shape = emitter, isa, shape
        self.rows = isa.row_tile
        self.key_blocks = round_up(shape.keys, isa.lanes) // isa.lanes
        self.words = round_up(shape.keys, WORD) // WORD
        self.elements = self.words * WORD // isa.element_bits
        e, lanes = emitter, isa.lanes
        self.value_blocks = shape.head.padded_group // lanes
        self.distances = e.local(isa.element, self.rows * self.key_blocks * lanes)
        self.nearest = e.local(isa.element, self.rows * lanes)
        self.masks = e.local("uint32", self.rows * self.words)
        self.mask_elements = T.decl_buffer(
            (self.rows * self.elements,), isa.element, data=self.masks.data, scope="local"
        )
        # |A v| and the thresholds are at most keys + 1, so half the width does for most images.
        narrow = isa.element_bits == 8 and shape.keys < MAX_NARROW_KEYS
        self.signed = "int16" if narrow else "int32"
        self.ones = e.local(self.signed, self.value_blocks * lanes)
        self.table = nibble_table(e, isa)

    def work(self) -> dict[str, int]:
        """What a tile of queries takes: bits counted in both products, and distances compared."""
        width = self.shape.head.padded_group // self.isa.element_bits
        elements = self.key_blocks * width + self.value_blocks * self.elements
        vector_bits = self.isa.lanes * self.isa.element_bits
        return {
            "popcount": self.rows * elements * vector_bits,
            "compare": self.rows * self.words * WORD,
        }

    def count_values(self, values: Any, head: Any) -> None:
        """Count the bits of a head's values, channel by channel."""
        e, lanes = self.emitter, self.isa.lanes
        first = e.let(head * (self.value_blocks * self.elements * lanes))
        for block in range(self.value_blocks):
            for half in range(lanes // HALF):
                at = block * lanes + half * HALF
                e.store(self.ones, at, e.constant(self.signed, 0, HALF), HALF)
            with e.loop(0, self.elements) as element:
                for half in range(lanes // HALF):
                    at = block * lanes + half * HALF
                    index = first + (block * self.elements + element) * lanes + half * HALF
                    count = e.cast(self.signed, T.popcount(e.load(values, index, HALF)), HALF)
                    e.store(self.ones, at, e.load(self.ones, at, HALF) + count, HALF)

    def measure(self, queries: Any, keys: Any, head: Any, first: Any) -> list[Any]:
        """Distances of all keys to the tile's queries; returns each query's largest attended."""
        e, isa = self.emitter, self.isa
        lanes, most = isa.lanes, (1 << isa.element_bits) - 1
        width = self.shape.head.padded_group // isa.element_bits
        groups = self.shape.head.groups
        first_key = e.let(head * (self.key_blocks * width * lanes))
        for r in range(self.rows):
            e.store(self.nearest, r * lanes, e.constant(isa.element, most, lanes), lanes)

        def blocks(first_block: Any, count: int, *, last: bool) -> None:
            sums = PopcountTile(e, isa, self.rows, count, width, self.table)
            sums.emit(
                queries,
                lambda r: ((first + r) * groups + head) * width,
                keys,
                lambda b: first_key + (first_block + b) * (width * lanes),
            )
            for r in range(self.rows):
                for b in range(count):
                    value = sums.vector(r, b)
                    if last and b == count - 1 and self.shape.keys % lanes:
                        # Padding keys are out of reach.
                        lane = T.Ramp(T.int32(0), T.int32(1), lanes)
                        inside = lane < e.constant("int32", self.shape.keys % lanes, lanes)
                        value = T.Select(inside, value, e.constant(isa.element, most, lanes))
                    value = e.let(value)
                    slot = (r * self.key_blocks + first_block + b) * lanes
                    e.store(self.distances, slot, value, lanes)
                    nearest = e.load(self.nearest, r * lanes, lanes)
                    e.store(self.nearest, r * lanes, T.min(nearest, value), lanes)

        tile = min(isa.lane_tile, self.key_blocks)
        full = (self.key_blocks - 1) // tile
        with e.loop(0, full) as step:
            blocks(step * tile, tile, last=False)
        blocks(full * tile, self.key_blocks - full * tile, last=True)
        slack = e.constant(isa.element, self.shape.slack)
        return [
            e.let(self._minimum(e.load(self.nearest, r * lanes, lanes)) + slack)
            for r in range(self.rows)
        ]

    def _minimum(self, vector: Any) -> Any:
        isa = self.isa
        name = f"llvm.vector.reduce.umin.v{isa.lanes}i{isa.element_bits}"
        return T.call_llvm_pure_intrin(isa.element, name, vector)

    def choose(self, limits: list[Any]) -> None:
        """Mask bits of every query, a word of 32 keys at a time."""
        e, lanes = self.emitter, self.isa.lanes
        keys = self.key_blocks * lanes

        def word(index: Any, count: int) -> None:
            for r, limit in enumerate(limits):
                distances = e.load(self.distances, r * keys + index * WORD, count)
                bits = mask_bits(distances <= e.splat(limit, count), count)
                if count < WORD:
                    bits = e.cast("uint32", bits)
                if self.shape.keys % WORD and isinstance(index, int):
                    # Set even in padding when the largest distance is within the slack.
                    inside = (1 << self.shape.keys % WORD) - 1
                    bits = T.bitwise_and(bits, e.constant("uint32", inside))
                e.store(self.masks, r * self.words + index, bits)

        with e.loop(0, self.words - 1) as index:
            word(index, WORD)
        word(self.words - 1, min(WORD, keys - (self.words - 1) * WORD))

    def attend(self, values: Any, threshold: Any, out: Any, head: Any, first: Any) -> None:
        """Masks times signs, and their thresholds, into the bits of the context."""
        e, isa, axis = self.emitter, self.isa, self.shape.head
        lanes = isa.lanes
        tile = next(t for t in range(isa.lane_tile, 0, -1) if self.value_blocks % t == 0)
        for first_block in range(0, self.value_blocks, tile):
            start = e.let((head * self.value_blocks + first_block) * (self.elements * lanes))
            sums = PopcountTile(e, isa, self.rows, tile, self.elements, self.table)
            sums.emit(
                self.mask_elements,
                lambda r: r * self.elements,
                values,
                lambda b, start=start: start + b * (self.elements * lanes),  # type: ignore[misc]
            )
            for r in range(self.rows):
                index = ((first + r) * axis.groups + head) * (axis.padded_group // HALF)
                limit = e.let(e.splat(e.cast(self.signed, threshold[first + r]), HALF))
                for b in range(tile):
                    for half in range(lanes // HALF):
                        at = (first_block + b) * lanes + half * HALF
                        differing = sums.sums(r, b, half, self.signed)
                        product = e.load(self.ones, at, HALF) - differing
                        bits = mask_bits(product >= limit)
                        if axis.size - at < HALF:
                            keep = (1 << max(axis.size - at, 0)) - 1
                            bits = T.bitwise_and(bits, e.constant("uint16", keep))
                        e.store(out, index + at // HALF, bits)
