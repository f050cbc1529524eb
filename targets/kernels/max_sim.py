"""Late interaction of packed vectors: every document against a text, or several.

The score of a document is `a * d - 2 * sum over a of min over b of popcount(query XOR document)`.
Documents are a port of the extent of a run, and a task is a document.

Instruction set: any. Four forms. *Pairs*: a document's vector is loaded along its length and
compared with one vector of a query; for few query vectors. Tile: four documents. *Single*: the same
of one vector on each side, many documents at once (max_sim_single). *Tile*: the vectors of all
queries fill the lanes (vitc.targets.packing), a document's are broadcast or look counts up in a
table of the queries (count_table), so the smallest distance is an elementwise minimum. Tile:
Isa.row_tile x Isa.lane_tile. *Across*: where they would leave lanes empty, documents fill them
(max_sim_across). Layouts: packed rows as they come, [.., P] bytes; `lanes` for the queries of the
third form.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tvm.script.ir_builder import tirx as T

from vitc.targets.isa import Isa
from vitc.targets.kernels.count_table import CountTable, CountTile, fits_table
from vitc.targets.kernels.emitter import CACHE_LINE, HALF, Emitter, Kernel
from vitc.targets.kernels.popcount_tile import BYTE_STEPS, PopcountTile, nibble_table
from vitc.targets.packing import WORD, round_up

__all__ = [
    "AHEAD",
    "MOST_LANES",
    "MaxSimShape",
    "PairScan",
    "in_tiles",
    "lay_lanes_kernel",
    "pairs_kernel",
    "tile_isa",
    "tile_kernel",
    "uses_tile",
]

MOST_LANES = 1024
"""Vectors of all queries whose distances fit the stack of a thread."""

_TOGETHER = 4
"""Documents that the form of pairs sums up at once."""
_FIELD = 16
"""Bits of a distance where several share a word."""
AHEAD = 8 << 10
"""Bytes ahead of a scan of single vectors that are fetched: beyond the page, where a processor's
own prefetcher ends."""
_UNROLLED = 32
"""Loads of a document that are written out; more are a loop."""
_FULL_LANES = 0.6
"""Lanes that have to be vectors for the tile to be faster than pairs."""


@dataclass(frozen=True)
class MaxSimShape:
    """Geometry of a scan.

    Attributes:
        texts: Queries that are scored at once.
        queries: a, vectors of a query.
        documents: b, vectors of a document.
        width: d, bits of a vector.
    """

    texts: int
    queries: int
    documents: int
    width: int

    @property
    def bytes(self) -> int:
        """P, bytes of a packed vector."""
        return -(-self.width // 8)

    @property
    def lanes(self) -> int:
        """Vectors of all queries."""
        return self.texts * self.queries

    @property
    def full(self) -> int:
        """Score of a document that equals the query."""
        return self.queries * self.width


def tile_isa(isa: Isa, shape: MaxSimShape) -> Isa:
    """Whose lanes the vectors of queries fill best: the instruction set's, or its narrow one's."""
    return min((isa, isa.filled_by(shape.lanes)), key=lambda one: round_up(shape.lanes, one.lanes))


def uses_tile(isa: Isa, shape: MaxSimShape) -> bool:
    """Whether a scan is done by the tile: vectors are whole elements and fill most of the lanes."""
    whole = shape.bytes % (isa.element_bits // 8) == 0
    return whole and shape.lanes >= _FULL_LANES * round_up(shape.lanes, isa.lanes)


# --- lanes ----------------------------------------------------------------------------------------


def lay_lanes_kernel(symbol: str, isa: Isa, shape: MaxSimShape) -> Kernel:
    """Build the copy of packed rows into lane blocks.

    Arguments of the C function: rows uint8 [lanes, P], out in the layout `lanes`, begin, end.

    Returns:
        The kernel. Its tasks are lane blocks.
    """
    emitter = Emitter(symbol)
    lanes, size = isa.lanes, isa.element_bits // 8
    steps, row = round_up(shape.width, WORD) // isa.element_bits, shape.bytes
    with emitter.open() as e:
        rows, out = e.pointers(rows="uint8", out="uint8")
        with e.loop(e.begin, e.end) as block, e.loop(0, lanes) as lane:
            vector = e.let(block * lanes + lane)
            # Lanes beyond the last vector repeat it: a copy that is always within the rows.
            source = e.let(T.min(vector, T.int32(shape.lanes - 1)) * row)
            for step in range(steps):
                place = ((block * steps + step) * lanes + lane) * size
                for byte in range(size):
                    at = step * size + byte
                    value = rows[source + at] if at < row else e.constant("uint8", 0)
                    e.store(out, place + byte, value)
    return emitter.kernel(round_up(shape.lanes, lanes) // lanes)


# --- tile -----------------------------------------------------------------------------------------


def tile_kernel(symbol: str, isa: Isa, shape: MaxSimShape) -> Kernel:
    """Build the scan by tiles.

    Arguments of the C function: queries in the layout `lanes`, documents uint8 [.., b, P], scores
    int32 [.., texts], begin, end.

    Returns:
        The kernel. Its tasks are documents, of which there are as many as a run says.
    """
    emitter = Emitter(symbol)
    together = max(1, isa.row_tile // shape.documents)
    with emitter.open() as e:
        queries, documents, scores = e.pointers(
            queries=isa.element, documents=isa.element, scores="int32"
        )
        scan = _TileScan(e, isa, shape, nibble_table(e, isa), (queries, documents, scores))
        groups = e.let(T.truncdiv(e.end - e.begin, T.int32(together)))
        with e.loop(0, groups) as group:
            scan.documents(e.begin + group * together, together)
        if together > 1:
            with e.loop(e.begin + groups * together, e.end) as document:
                scan.documents(document, 1)
    return emitter.kernel(0)


@dataclass
class _TileScan:
    """Emits the scores of some documents.

    Attributes:
        emitter: Where the code goes.
        isa: Tile and element.
        shape: Geometry.
        table: What `nibble_table` emitted.
        operands: Queries, documents, scores.
    """

    emitter: Emitter
    isa: Isa
    shape: MaxSimShape
    table: Any
    operands: tuple[Any, Any, Any]

    def __post_init__(self) -> None:
        blocks = round_up(self.shape.lanes, self.isa.lanes) // self.isa.lanes
        self._tile = next(t for t in range(self.isa.lane_tile, 0, -1) if blocks % t == 0)
        self._tiles = blocks // self._tile
        self._elements = 8 * self.shape.bytes // self.isa.element_bits
        wide = self.isa.element_bits == 8 and self._elements > BYTE_STEPS
        self._dtype = "uint16" if wide else self.isa.element
        self._counts = None
        if fits_table(self.isa, blocks, self.shape.bytes):
            steps = round_up(self.shape.width, WORD) // self.isa.element_bits
            lanes = self.operands[0]
            self._counts = CountTable(
                self.emitter, self.isa, blocks, self.shape.bytes, lanes, steps
            )

    def documents(self, first: Any, count: int) -> None:
        """Emit the scores of `count` documents from `first` on."""
        e, shape, lanes = self.emitter, self.shape, self.isa.lanes
        first = e.let(first)
        width = self._tiles * self._tile * lanes
        direct = shape.queries == 1 and shape.texts % HALF == 0
        nearest: Any = None if direct else e.local("int32", count * width)
        span = self._tile * lanes

        def finish(lane: Any, best: Any) -> None:
            for document in range(count):
                for part in range(0, span, HALF):
                    vector = e.load(best, document * span + part, HALF)
                    value = e.cast("int32", vector, HALF)
                    if not direct:
                        e.store(nearest, document * width + lane + part, value, HALF)
                        continue
                    self._store_scores(first + document, lane + part, value)

        if self._tiles == 1:
            finish(0, self._nearest(first, count, 0))
        else:
            with e.loop(0, self._tiles) as tile:
                finish(tile * span, self._nearest(first, count, tile))
        if direct:
            return
        scores = self.operands[2]
        for document in range(count):
            with e.loop(0, shape.texts) as text:
                total = e.local("int32", 1)
                e.store(total, 0, e.constant("int32", 0))
                with e.loop(0, shape.queries) as i:
                    place = document * width + text * shape.queries + i
                    e.store(total, 0, total[0] + nearest[place])
                value = e.constant("int32", shape.full) - total[0] - total[0]
                e.store(scores, (first + document) * shape.texts + text, value)

    def _store_scores(self, document: Any, text: Any, distance: Any) -> None:
        """Store the scores of `HALF` texts, none of them beyond the last."""
        e, shape = self.emitter, self.shape
        value = e.constant("int32", shape.full, HALF) - distance - distance
        place = document * shape.texts + text
        if self._tiles * self._tile * self.isa.lanes == shape.lanes:
            e.store(self.operands[2], place, value, HALF)
            return
        with T.If(text < T.int32(shape.texts)), T.Then():
            e.store(self.operands[2], place, value, HALF)

    def _nearest(self, first: Any, count: int, tile: Any) -> Any:
        """Emit the smallest distance of each document, [count, lanes of a tile]."""
        e, shape, lanes = self.emitter, self.shape, self.isa.lanes
        span = self._tile * lanes
        best = e.local(self._dtype, count * span)
        rows = self.isa.row_tile if count == 1 else count * shape.documents
        if count > 1:
            self._rows(first * shape.documents, rows, tile, best, range(0, rows, shape.documents))
            return best
        tiles, rest = divmod(shape.documents, rows)
        start = e.let(first * shape.documents)
        if tiles:
            self._rows(start, rows, tile, best, [0])
        if tiles > 1:
            with e.loop(1, tiles) as number:
                self._rows(start + number * rows, rows, tile, best, [])
        if rest:
            self._rows(start + tiles * rows, rest, tile, best, [] if tiles else [0])
        return best

    def _rows(self, start: Any, rows: int, tile: Any, best: Any, begins: Sequence[int]) -> None:
        """Emit distances of some rows, and put the smallest into `best`.

        Args:
            start: First row.
            rows: How many.
            tile: Number of the tile of lanes.
            best: Of each document, what its rows before came to.
            begins: Rows that are the first of their documents.
        """
        e, lanes, elements = self.emitter, self.isa.lanes, self._elements
        queries, documents, _ = self.operands
        step = round_up(self.shape.width, WORD) // self.isa.element_bits * lanes
        product: CountTile | PopcountTile
        if self._counts is not None:
            product = CountTile(self._counts, rows, self._tile)
            product.emit(documents, lambda row: (start + row) * elements, tile * self._tile * lanes)
        else:
            product = PopcountTile(e, self.isa, rows, self._tile, elements, self.table)
            product.emit(
                documents,
                lambda row: (start + row) * elements,
                queries,
                lambda block: (tile * self._tile + block) * step,
            )
        for row in range(rows):
            document = sum(1 for begin in begins if begin <= row) - 1 if len(begins) > 1 else 0
            for block in range(self._tile):
                place = (document * self._tile + block) * lanes
                value = product.vector(row, block)
                if row not in begins:
                    value = T.min(e.load(best, place, lanes), value)
                e.store(best, place, value, lanes)


# --- pairs ----------------------------------------------------------------------------------------


def pairs_kernel(symbol: str, isa: Isa, shape: MaxSimShape) -> Kernel:
    """Build the scan by pairs of vectors.

    Arguments of the C function: queries uint8 [texts, a, P], documents uint8 [.., b, P], scores
    int32 [.., texts], begin, end.

    Returns:
        The kernel. Its tasks are documents, of which there are as many as a run says.
    """
    emitter = Emitter(symbol)
    with emitter.open() as e:
        queries, documents, scores = e.pointers(queries="uint8", documents="uint8", scores="int32")
        scan = PairScan(e, isa, shape, (queries, documents, scores))
        groups = e.let(T.truncdiv(e.end - e.begin, T.int32(_TOGETHER)))
        with e.loop(0, groups) as group:
            scan.documents(e.begin + group * _TOGETHER, _TOGETHER)
        with e.loop(e.begin + groups * _TOGETHER, e.end) as document:
            scan.documents(document, 1)
    return emitter.kernel(0)


def in_tiles(scan: PairScan, tile: int, documents: Callable[[Any], None]) -> None:
    """Emit the scan of a range by tiles, and pair by pair where there is not one whole tile.

    Documents that end the range are taken together with some before them, and scored twice.

    Args:
        scan: Of pairs.
        tile: Documents of a tile.
        documents: Emits the scores of the tile that begins at a document.
    """
    e = scan.emitter
    count = e.let(e.end - e.begin)
    few = count < T.int32(tile)
    tiles = T.truncdiv(count + T.int32(tile - 1), T.int32(tile))
    with e.loop(0, T.Select(few, T.int32(0), tiles)) as number:
        documents(T.min(e.begin + number * tile, e.end - tile))
    with e.loop(e.begin, T.Select(few, e.end, e.begin)) as document:
        scan.documents(document, 1)


@dataclass
class PairScan:
    """Emits the scores of some documents; arguments as of `_TileScan`."""

    emitter: Emitter
    isa: Isa
    shape: MaxSimShape
    operands: tuple[Any, Any, Any]

    def __post_init__(self) -> None:
        self._pieces = list(_pieces(self.shape.bytes, self.isa.piece_bytes))
        pairs = self.shape.lanes * self.shape.documents
        self._unrolled = pairs * len(self._pieces) <= _UNROLLED

    def _each(self, count: int, body: Callable[[Any], None], start: int = 0) -> None:
        """Emit a body for numbers from `start` to `count`: a loop where there are many."""
        if self._unrolled:
            for number in range(start, count):
                body(number)
        elif start < count:
            with self.emitter.loop(start, count) as number:
                body(number)

    def documents(self, first: Any, count: int) -> None:
        """Emit the scores of `count` documents from `first` on."""
        e, shape = self.emitter, self.shape
        first = e.let(first)
        scores = self.operands[2]
        if shape.documents == 1 and self._unrolled:
            for line in range(0, count * shape.bytes, CACHE_LINE):
                e.fetch(self.operands[1], first * shape.bytes + AHEAD + line)

        def text_scores(text: Any) -> None:
            total = e.local("int32", count)
            e.store(total, 0, e.constant("int32", 0, count), count)
            best = e.local("int32", count)

            def vector(i: Any) -> None:
                row = text * shape.queries + i
                e.store(best, 0, self._distances(row, first, 0, count), count)

                def other(j: Any) -> None:
                    found = self._distances(row, first, j, count)
                    e.store(best, 0, T.min(e.load(best, 0, count), found), count)

                self._each(shape.documents, other, 1)
                e.store(total, 0, e.load(total, 0, count) + e.load(best, 0, count), count)

            self._each(shape.queries, vector)
            distance = e.load(total, 0, count)
            value = e.constant("int32", shape.full, count) - distance - distance
            if shape.texts == 1:
                e.store(scores, first, value, count)
                return
            e.store(best, 0, value, count)
            for document in range(count):
                e.store(scores, (first + document) * shape.texts + text, best[document])

        self._each(shape.texts, text_scores)

    def _distances(self, query: Any, first: Any, vector: Any, count: int) -> Any:
        """Distances of a query's vector from the same vector of some documents, int32 x count."""
        e, shape, P = self.emitter, self.shape, self.shape.bytes
        rows = [
            e.let((first + document) * (shape.documents * P) + vector * P)
            for document in range(count)
        ]
        query = e.let(query * P)
        if self._fields(count):
            counts = [self._words(query, row) for row in rows]
            lanes = self.isa.piece_bytes // 8
            shift = e.constant("uint64", _FIELD, lanes)
            whole = counts[-1]
            for each in reversed(counts[:-1]):
                whole = T.bitwise_or(T.shift_left(whole, shift), each)
            total = e.let(_sum(e.let(whole), "uint64", lanes))
            for at, size in self._pieces[self._vectors :]:
                for document, row in enumerate(rows):
                    bits = e.cast("uint64", self._scalar(query + at, row + at, size))
                    total = total + T.shift_left(bits, T.uint64(_FIELD * document))
            fields = T.call_intrin(f"uint16x{count}", "tirx.reinterpret", total)
            return e.let(e.cast("int32", fields, count))
        found = e.local("int32", count)
        for document, row in enumerate(rows):
            e.store(found, document, self._distance(query, row))
        return e.load(found, 0, count)

    @property
    def _vectors(self) -> int:
        """Pieces that fill a vector."""
        return sum(size == self.isa.piece_bytes for _, size in self._pieces)

    def _fields(self, count: int) -> bool:
        """Whether distances of documents are summed up as fields of one word."""
        words = self.isa.sums_words and self._vectors
        return bool(words) and count > 1 and self.shape.width < 1 << _FIELD

    def _words(self, query: Any, row: Any) -> Any:
        """Counts of whole vectors, in words of 64 bits."""
        total = None
        size = self.isa.piece_bytes
        for at, _ in self._pieces[: self._vectors]:
            bits = T.call_intrin(
                f"uint64x{size // 8}", "tirx.reinterpret", self._apart(query + at, row + at, size)
            )
            count = T.popcount(bits)
            total = count if total is None else total + count
        return self.emitter.let(total)

    def _apart(self, query: Any, row: Any, size: int) -> Any:
        e, (queries, documents, _) = self.emitter, self.operands
        return T.bitwise_xor(e.load(queries, query, size), e.load(documents, row, size))

    def _scalar(self, query: Any, row: Any, size: int) -> Any:
        """Distance of up to eight bytes, int32."""
        bits = self._apart(query, row, size)
        if size > 1:
            bits = T.call_intrin(f"uint{8 * size}", "tirx.reinterpret", bits)
        wide = self.emitter.cast("uint64" if size == 8 else "uint32", bits)
        return self.emitter.cast("int32", T.popcount(wide))

    def _distance(self, query: Any, row: Any) -> Any:
        """Distance of two vectors, int32."""
        e, size = self.emitter, self.isa.piece_bytes
        total = e.constant("int32", 0)
        vectors, rest = self._pieces[: self._vectors], self._pieces[self._vectors :]
        if vectors and self.isa.sums_words:
            total = total + e.cast("int32", _sum(self._words(query, row), "uint64", size // 8))
        elif vectors and size > 8:
            # Sums of bytes: 31 vectors at most before they are widened.
            for start in range(0, len(vectors), BYTE_STEPS):
                counts = None
                for at, _ in vectors[start : start + BYTE_STEPS]:
                    count = T.popcount(self._apart(query + at, row + at, size))
                    counts = count if counts is None else counts + count
                wide = e.cast("uint16", e.let(counts), size)
                total = total + e.cast("int32", _sum(wide, "uint16", size))
        else:
            rest = self._pieces
        for at, length in rest:
            total = total + self._scalar(query + at, row + at, length)
        return e.let(total)


def _pieces(length: int, most: int) -> Sequence[tuple[int, int]]:
    """Split bytes into loads of powers of two: pairs of start and size, the largest first."""
    pieces, at, size = [], 0, most
    while at < length:
        while size > length - at or (size > 8 and size < most):
            size //= 2
        pieces.append((at, size))
        at += size
    return pieces


def _sum(vector: Any, dtype: str, lanes: int) -> Any:
    """Sum of a vector's elements."""
    bits = dtype.removeprefix("uint")
    return T.call_llvm_pure_intrin(dtype, f"llvm.vector.reduce.add.v{lanes}i{bits}", vector)
