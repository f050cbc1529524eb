"""Binary attention of one head: scores, masks, masks times signs, threshold, for a tile of queries.

Groups (windows) attend inside themselves: the matrices of a window's heads follow one another.

Instruction set: any. Tile: Isa.row_tile queries against Isa.lane_tile blocks of keys, then of
values. Layouts: queries as rows, keys and values (along tokens) as lanes, context as rows with
every head padded to a multiple of 32 bits. Distances and masks of a tile stay on the stack.

Softmax and its threshold of a quarter of the maximum vanish (Hamming distance <= row minimum +
slack). With signs v and mask A, A v = 2 popcount(A & v) - popcount(A) = popcount(v) - popcount(A
XOR v), so both products count differing bits; popcount(v) is counted once a head, and neither
popcount(A) nor AND is needed.

Where scores have a bias, the mask is decided in fp32 as the dialect's BiasedBestMask is: the score
d - 2 distance is exact, one addition rounds, then the row's largest, one subtraction a row, one
comparison. Nothing multiplies, so nothing can be contracted. Pairs of a window that are excluded
have a limit of -inf in place of the bias, all others one of +inf, in a table a kind of window.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from tvm.script.ir_builder import tirx as T

from vitc.targets.isa import Isa
from vitc.targets.kernels.emitter import HALF, Emitter, Kernel, mask_bits
from vitc.targets.kernels.popcount_tile import PopcountTile, nibble_table
from vitc.targets.packing import ROW_PADDING, WORD, Axis, round_up

__all__ = [
    "MAX_BYTE_DISTANCE",
    "AttentionShape",
    "ElasticTables",
    "ScoreBias",
    "attention_kernel",
    "bias_size",
]

MAX_BYTE_DISTANCE = 240
"""Largest head width whose distance plus slack fits 8-bit lanes."""

_MOST_LANES = 32
"""Of a block: so many keys are read behind the last."""

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


@dataclass(frozen=True)
class ScoreBias:
    """A bias of scores, in place of a slack.

    Attributes:
        cut: How far below the row's largest biased score a key is still attended, fp32.
        kinds: Kinds of windows by what is excluded in them; 0 where nothing is.
    """

    cut: float
    kinds: int = 0


@dataclass(frozen=True)
class ElasticTables:
    """Tables by the Hamming distance above the row minimum, in place of a slack.

    Attributes:
        length: Entries of each; more than a head is wide.
    """

    length: int


def bias_size(queries: int, keys: int, matrices: int) -> int:
    """Floats of a table of matrices [queries, keys], with room for what tiles read behind it."""
    return (matrices * queries + ROW_PADDING) * keys + _MOST_LANES


def attention_kernel(
    symbol: str,
    isa: Isa,
    shape: AttentionShape,
    *,
    windows: int = 1,
    bias: ScoreBias | ElasticTables | None = None,
    summed: bool = False,
) -> Kernel:
    """Build the attention kernel.

    Arguments of the C function: queries, keys, values, [bias (fp32 [heads, queries, keys], of
    `bias_size`), [limits (fp32 [kinds, queries, keys], the same), kinds (int32 [windows]),]] or
    [terms, least (int64 each),] threshold (int32, one a query of a window, at most keys + 1 in
    magnitude) or two summands of it (fp32, one a query of a window, and one a channel with every
    head padded), out, begin, end. Queries, thresholds and out have rows padded to `ROW_PADDING`.

    Args:
        symbol: Name of the C function.
        isa: Instruction set.
        shape: Geometry, of a window.
        windows: Groups of queries and of keys.
        bias: Of the scores, or tables, in place of the slack.
        summed: Whether a threshold is a sum in fp32, of a query's and a channel's value.

    Returns:
        The kernel. Its tasks are pairs of a matrix (a window's head) and a tile of queries.
    """
    emitter = Emitter(symbol)
    with emitter.open() as e:
        tables = {}
        if isinstance(bias, ElasticTables):
            tables = {"terms": "int64", "least": "int64"}
        elif bias is not None:
            excluding = {"limits": "float32", "kinds": "int32"} if bias.kinds else {}
            tables = {"bias": "float32", **excluding}
        limits = {"rows": "float32", "columns": "float32"} if summed else {"threshold": "int32"}
        queries, keys, values, *others, out = e.pointers(
            queries=isa.element,
            keys=isa.element,
            values=isa.element,
            **tables,
            **limits,
            out="uint16",
        )
        biases, threshold = others[: len(tables)], others[len(tables) :]
        tile = _QueryTile(e, isa, shape, windows, bias)
        tiles = round_up(shape.queries, isa.row_tile) // isa.row_tile
        with e.loop(T.floordiv(e.begin, tiles), T.floordiv(e.end + (tiles - 1), tiles)) as matrix:
            tile.count_values(values, matrix)
            first_task, stop = e.let(e.begin - matrix * tiles), e.let(e.end - matrix * tiles)
            with e.loop(T.max(first_task, 0), T.min(stop, tiles)) as task:
                where = tile.place(matrix, e.let(task * isa.row_tile))
                if bias is None:
                    tile.choose(tile.measure(queries, keys, where))
                elif isinstance(bias, ElasticTables):
                    nearest = tile.measure(queries, keys, where)
                    tile.choose(tile.cut(nearest, biases, bias.length), strictly=True)
                else:
                    tile.choose_biased(tile.measure_biased(queries, keys, biases, where))
                tile.attend(values, threshold, out, where)
    tasks = windows * shape.head.groups * tiles
    return emitter.kernel(tasks, **{unit: tasks * each for unit, each in tile.work().items()})


@dataclass(frozen=True)
class _Place:
    """Where a tile of queries stands.

    Attributes:
        matrix: Number of the window's head.
        head: Head.
        window: Window; None if there is one.
        first: First query, counted in the window.
        row: First query, counted in all windows.
    """

    matrix: Any
    head: Any
    window: Any
    first: Any
    row: Any


class _QueryTile:
    """Emits the steps of one tile of queries, and holds their buffers on the stack."""

    def __init__(
        self,
        emitter: Emitter,
        isa: Isa,
        shape: AttentionShape,
        windows: int,
        bias: ScoreBias | ElasticTables | None,
    ) -> None:
        self.emitter, self.isa, self.shape = emitter, isa, shape
        self.windows = windows
        self.bias = bias if isinstance(bias, ScoreBias) else None
        self.rows = isa.row_tile
        self.key_blocks = round_up(shape.keys, isa.lanes) // isa.lanes
        self.words = round_up(shape.keys, WORD) // WORD
        self.elements = self.words * WORD // isa.element_bits
        e, lanes = emitter, isa.lanes
        self.value_blocks = shape.head.padded_group // lanes
        if isinstance(bias, ElasticTables):
            self.totals = e.local("int64", self.rows)
            self.attended = e.local("int32", self.rows)
        if self.bias is None:
            self.distances = e.local(isa.element, self.rows * self.key_blocks * lanes)
            self.nearest = e.local(isa.element, self.rows * lanes)
        else:
            self.biased = e.local("float32", self.rows * self.key_blocks * lanes)
            self.largest = e.local("float32", self.rows * HALF)
        self.masks = e.local("uint32", self.rows * self.words)
        self.mask_elements = T.decl_buffer(
            (self.rows * self.elements,), isa.element, data=self.masks.data, scope="local"
        )
        if self.bias is not None:
            self.mask_halves = T.decl_buffer(
                (self.rows * self.words * 2,), "uint16", data=self.masks.data, scope="local"
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

    def place(self, matrix: Any, first: Any) -> _Place:
        """Where a tile stands whose first query is `first`."""
        e = self.emitter
        if self.windows == 1:
            return _Place(matrix, matrix, None, first, first)
        window, head = e.split(matrix, self.shape.head.groups)
        return _Place(matrix, head, window, first, e.let(window * self.shape.queries + first))

    def count_values(self, values: Any, matrix: Any) -> None:
        """Count the bits of a head's values, channel by channel."""
        e, lanes = self.emitter, self.isa.lanes
        first = e.let(matrix * (self.value_blocks * self.elements * lanes))
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

    def measure(self, queries: Any, keys: Any, where: _Place) -> list[Any]:
        """Distances of all keys to the tile's queries; returns each query's largest attended."""
        e, isa = self.emitter, self.isa
        lanes, most = isa.lanes, (1 << isa.element_bits) - 1

        def keep(sums: PopcountTile, first_block: Any, count: int, *, last: bool) -> None:
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

        def begin() -> None:
            for r in range(self.rows):
                e.store(self.nearest, r * lanes, e.constant(isa.element, most, lanes), lanes)

        self._scores(queries, keys, where, begin, keep)
        slack = e.constant(isa.element, self.shape.slack)
        return [
            e.let(self._minimum(e.load(self.nearest, r * lanes, lanes)) + slack)
            for r in range(self.rows)
        ]

    def _scores(
        self,
        queries: Any,
        keys: Any,
        where: _Place,
        begin: Callable[[], None],
        keep: Callable[..., None],
    ) -> None:
        """Emit the distances of all keys, blocks by blocks, and what becomes of them."""
        e, isa = self.emitter, self.isa
        lanes = isa.lanes
        width = self.shape.head.padded_group // isa.element_bits
        groups = self.shape.head.groups
        first_key = e.let(where.matrix * (self.key_blocks * width * lanes))
        begin()

        def blocks(first_block: Any, count: int, *, last: bool) -> None:
            sums = PopcountTile(e, isa, self.rows, count, width, self.table)
            sums.emit(
                queries,
                lambda r: ((where.row + r) * groups + where.head) * width,
                keys,
                lambda b: first_key + (first_block + b) * (width * lanes),
            )
            keep(sums, first_block, count, last=last)

        tile = min(isa.lane_tile, self.key_blocks)
        full = (self.key_blocks - 1) // tile
        with e.loop(0, full) as step:
            blocks(step * tile, tile, last=False)
        blocks(full * tile, self.key_blocks - full * tile, last=True)

    def measure_biased(
        self, queries: Any, keys: Any, biases: Sequence[Any], where: _Place
    ) -> list[Any]:
        """Biased scores of all keys; returns each query's least that is attended."""
        e, isa, shape = self.emitter, self.isa, self.shape
        assert self.bias is not None  # noqa: S101 - the only caller has asked
        never = e.constant("float32", -math.inf, HALF)
        bias, *excluding = biases
        first = where.head * shape.queries + where.first
        rows = [e.let((first + r) * shape.keys) for r in range(self.rows)]
        limited: list[Any] = []
        if excluding:
            limits, kinds = excluding
            kind = kinds[0 if where.window is None else where.window]
            first = e.let(kind * shape.queries + where.first)
            limited = [e.let((first + r) * shape.keys) for r in range(self.rows)]

        def begin() -> None:
            for r in range(self.rows):
                e.store(self.largest, r * HALF, never, HALF)

        def keep(sums: PopcountTile, first_block: Any, count: int, *, last: bool) -> None:
            for r in range(self.rows):
                for b, half in product(range(count), range(isa.lanes // HALF)):
                    key = (first_block + b) * isa.lanes + half * HALF
                    beyond = key + HALF - shape.keys if last else 0
                    if beyond >= HALF:
                        continue
                    differing = sums.sums(r, b, half)
                    score = e.constant("int32", shape.head.size, HALF) - (differing + differing)
                    added = e.load(bias, rows[r] + key, HALF)
                    if excluding:
                        added = T.min(added, e.load(limits, limited[r] + key, HALF))
                    value = e.cast("float32", score, HALF) + added
                    if beyond > 0:
                        lane = T.Ramp(T.int32(0), T.int32(1), HALF)
                        inside = lane < e.constant("int32", HALF - beyond, HALF)
                        value = T.Select(inside, value, never)
                    value = e.let(value)
                    e.store(self.biased, r * self.key_blocks * isa.lanes + key, value, HALF)
                    largest = e.load(self.largest, r * HALF, HALF)
                    e.store(self.largest, r * HALF, T.max(largest, value), HALF)

        self._scores(queries, keys, where, begin, keep)
        cut = e.constant("float32", self.bias.cut)
        return [e.let(self._largest(r) - cut) for r in range(self.rows)]

    def _largest(self, row: int) -> Any:
        """The largest of a row's 16 partial ones."""
        e, lanes = self.emitter, HALF
        while lanes > 1:
            lanes //= 2
            low, high = (e.load(self.largest, row * HALF + at, lanes) for at in (0, lanes))
            e.store(self.largest, row * HALF, T.max(low, high), lanes)
        return e.load(self.largest, row * HALF, 1)

    def _minimum(self, vector: Any) -> Any:
        isa = self.isa
        name = f"llvm.vector.reduce.umin.v{isa.lanes}i{isa.element_bits}"
        return T.call_llvm_pure_intrin(isa.element, name, vector)

    def cut(self, nearest: list[Any], tables: Sequence[Any], length: int) -> list[Any]:
        """The distance from which on keys are not attended, of every query.

        Terms are summed in 64 bits, key by key; `least` falls with the distance, so those that are
        more than the sum are the first ones.
        """
        e, isa = self.emitter, self.isa
        terms, least = tables
        lanes = self.key_blocks * isa.lanes
        first = [e.let(e.cast("int32", value)) for value in nearest]
        for r in range(self.rows):
            e.store(self.totals, r, e.constant("int64", 0))
            e.store(self.attended, r, e.constant("int32", 0))
        with e.loop(0, self.shape.keys) as key:
            for r in range(self.rows):
                distance = e.cast("int32", self.distances[r * lanes + key])
                # What a tile has behind the last query has no distances of its own.
                above = T.min(distance - first[r], length - 1)
                e.store(self.totals, r, self.totals[r] + terms[above])
        with e.loop(0, length) as above:
            for r in range(self.rows):
                more = e.cast("int32", least[above] > self.totals[r])
                e.store(self.attended, r, self.attended[r] + more)
        # One more than the largest distance is as good as any that is larger.
        most = self.shape.head.size + 1
        return [
            e.let(e.cast(isa.element, T.min(first[r] + self.attended[r], most)))
            for r in range(self.rows)
        ]

    def choose(self, limits: list[Any], *, strictly: bool = False) -> None:
        """Mask bits of every query, a word of 32 keys at a time: up to a limit, or below it."""
        e, lanes = self.emitter, self.isa.lanes
        keys = self.key_blocks * lanes

        def word(index: Any, count: int) -> None:
            for r, limit in enumerate(limits):
                distances = e.load(self.distances, r * keys + index * WORD, count)
                most = e.splat(limit, count)
                bits = mask_bits(distances < most if strictly else distances <= most, count)
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

    def choose_biased(self, least: list[Any]) -> None:
        """Mask bits of every query, 16 keys at a time."""
        e = self.emitter
        scores = self.key_blocks * self.isa.lanes

        def part(half: Any) -> None:
            for r, limit in enumerate(least):
                values = e.load(self.biased, r * scores + half * HALF, HALF)
                bits = mask_bits(values >= e.splat(limit, HALF))
                left = self.shape.keys - half * HALF if isinstance(half, int) else HALF
                if left < HALF:
                    # Set even in padding where all keys are.
                    bits = T.bitwise_and(bits, e.constant("uint16", (1 << left) - 1))
                e.store(self.mask_halves, r * 2 * self.words + half, bits)

        used = -(-self.shape.keys // HALF)
        with e.loop(0, used - 1) as half:
            part(half)
        part(used - 1)
        if used < 2 * self.words:
            for r in range(self.rows):
                empty = e.constant("uint16", 0)
                e.store(self.mask_halves, r * 2 * self.words + used, empty)

    def attend(self, values: Any, threshold: Sequence[Any], out: Any, where: _Place) -> None:
        """Masks times signs, and their thresholds, into the bits of the context."""
        e, isa = self.emitter, self.isa
        lanes = isa.lanes
        tile = next(t for t in range(isa.lane_tile, 0, -1) if self.value_blocks % t == 0)
        for first_block in range(0, self.value_blocks, tile):
            block = where.matrix * self.value_blocks + first_block
            start = e.let(block * (self.elements * lanes))
            sums = PopcountTile(e, isa, self.rows, tile, self.elements, self.table)
            sums.emit(
                self.mask_elements,
                lambda r: r * self.elements,
                values,
                lambda b, start=start: start + b * (self.elements * lanes),  # type: ignore[misc]
            )
            for r in range(self.rows):
                if self.windows == 1 or self.shape.queries % self.rows == 0:
                    self._finish(sums, first_block, r, threshold, out, where)
                    continue
                # What a tile has behind the last query would be another window's.
                with T.If(where.first + r < self.shape.queries), T.Then():
                    self._finish(sums, first_block, r, threshold, out, where)

    def _finish(
        self,
        sums: PopcountTile,
        first_block: int,
        r: int,
        threshold: Sequence[Any],
        out: Any,
        where: _Place,
    ) -> None:
        """Emit the bits of one query's context, in some blocks of channels."""
        e, axis, lanes = self.emitter, self.shape.head, self.isa.lanes
        index = ((where.row + r) * axis.groups + where.head) * (axis.padded_group // HALF)
        limit = threshold[0][where.first + r]
        if len(threshold) == 1:
            limit = e.cast(self.signed, limit)
        limit = e.let(e.splat(limit, HALF))
        for b in range(sums.blocks):
            for half in range(lanes // HALF):
                at = (first_block + b) * lanes + half * HALF
                differing = sums.sums(r, b, half, self.signed)
                signed = e.load(self.ones, at, HALF) - differing
                if len(threshold) == 1:
                    bits = mask_bits(signed >= limit)
                else:
                    channel = where.head * axis.padded_group + at
                    least = limit + e.load(threshold[1], channel, HALF)
                    bits = mask_bits(e.cast("float32", signed, HALF) >= least)
                if axis.size - at < HALF:
                    keep = (1 << max(axis.size - at, 0)) - 1
                    bits = T.bitwise_and(bits, e.constant("uint16", keep))
                e.store(out, index + at // HALF, bits)
