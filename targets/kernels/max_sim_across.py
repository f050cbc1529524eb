"""Late interaction with documents across the lanes: for texts of several vectors.

Vector j of as many documents as there are lanes is turned in registers, so that a lane is a
document; then each vector of a query is broadcast against them. The smallest distance is an
elementwise minimum over j, the sum over the query's vectors an elementwise sum, and no lane is
empty, whatever the number of vectors. A turn takes some 5 shuffles of a document's 256 bits.

Instruction set: any. Tile: `_ROWS` vectors of queries x one block of lanes. Layouts: packed rows as
they come. The documents that end a range are taken together with some before them, whose scores are
written twice; a range of fewer than a block is done pair by pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from vitc.targets.isa import Isa
from vitc.targets.kernels.emitter import HALF, Emitter, Kernel
from vitc.targets.kernels.max_sim import MaxSimShape, PairScan, in_tiles
from vitc.targets.kernels.popcount_tile import BYTE_STEPS, PopcountTile, nibble_table

__all__ = ["across_kernel", "fits_across"]

_ROWS = 8
"""The most vectors of queries whose distances are summed up at once."""
_PIECE = 16
"""Bytes within which vector units interleave in one instruction."""
_MOST_BYTES = 32 << 10
"""Of turned vectors, and of distances: threads of musl have a stack of 128 KiB."""
_FEWEST = 4
"""Vectors of a text that pay for turning the documents."""


def fits_across(isa: Isa, shape: MaxSimShape) -> bool:
    """Whether the form is for a scan: several vectors a text, of whole elements, in the stack."""
    size = isa.element_bits // 8
    turned, kept = shape.bytes * isa.lanes, shape.lanes * isa.lanes * max(size, 2)
    whole = not shape.bytes % size
    return whole and shape.queries >= _FEWEST and max(turned, kept) <= _MOST_BYTES


def across_kernel(symbol: str, isa: Isa, shape: MaxSimShape) -> Kernel:
    """Build the scan with documents across the lanes.

    Arguments of the C function: queries uint8 [texts, a, P], documents uint8 [.., b, P], scores
    int32 [.., texts], begin, end.

    Returns:
        The kernel. Its tasks are documents, of which there are as many as a run says.
    """
    emitter, lanes = Emitter(symbol), isa.lanes
    with emitter.open() as e:
        operands = e.pointers(queries="uint8", documents="uint8", scores="int32")
        scan = _AcrossScan(e, isa, shape, tuple(operands))
        in_tiles(PairScan(e, isa, shape, tuple(operands)), lanes, scan.documents)
    return emitter.kernel(0)


@dataclass(frozen=True)
class _Elements:
    """Elements of packed bytes, by number."""

    emitter: Emitter
    isa: Isa
    data: Any

    def __getitem__(self, index: Any) -> Any:
        size = self.isa.element_bits // 8
        value = self.emitter.load(self.data, index * size, size)
        return value if size == 1 else T.call_intrin(self.isa.element, "tirx.reinterpret", value)


@dataclass
class _AcrossScan:
    """Emits the scores of a block of documents.

    Attributes:
        emitter: Where the code goes.
        isa: Lanes and element.
        shape: Geometry.
        operands: Queries, documents, scores.
    """

    emitter: Emitter
    isa: Isa
    shape: MaxSimShape
    operands: tuple[Any, Any, Any]
    _table: Any = field(init=False)
    _turned: Any = field(init=False)
    _nearest: Any = field(init=False)

    def __post_init__(self) -> None:
        e, isa, shape = self.emitter, self.isa, self.shape
        self._elements = 8 * shape.bytes // isa.element_bits
        wide = isa.element_bits == 8 and self._elements > BYTE_STEPS
        self._dtype = "uint16" if wide else isa.element
        self._table = nibble_table(e, isa)
        # What is on the stack begins 16 bytes anyway.
        memory = e.scratch if isa.lanes * isa.element_bits > 8 * _PIECE else e.local
        self._turned = memory(isa.element, self._elements * isa.lanes)
        self._nearest = memory(self._dtype, shape.lanes * isa.lanes)

    def documents(self, first: Any) -> None:
        """Emit the scores of as many documents as there are lanes, from `first` on."""
        e, shape, lanes = self.emitter, self.shape, self.isa.lanes
        first = e.let(first)
        farthest = e.constant(self._dtype, (1 << int(self._dtype[4:])) - 1, lanes)
        with e.loop(0, shape.lanes) as row:
            e.store(self._nearest, row * lanes, farthest, lanes)
        with e.loop(0, shape.documents) as vector:
            self._turn(e.let((first * shape.documents + vector) * shape.bytes))
            groups = -(-shape.lanes // _ROWS)
            rows = -(-shape.lanes // groups)
            whole, rest = divmod(shape.lanes, rows)
            with e.loop(0, whole) as group:
                self._compare(e.let(group * rows), rows)
            if rest:
                self._compare(T.int32(whole * rows), rest)
        with e.loop(0, shape.texts) as text:
            self._sum_up(first, text)

    def _turn(self, start: Any) -> None:
        """Emit the copy of a vector of each document into lanes.

        Args:
            start: Byte of the first document's.
        """
        e, shape, size = self.emitter, self.shape, self.isa.element_bits // 8
        piece = min(_PIECE, 1 << (shape.bytes.bit_length() - 1))
        steps, rest = divmod(shape.bytes, piece)

        def one(offset: Any, step: Any, skipped: int) -> None:
            for number, vector in enumerate(self._turned_piece(start + offset, piece)):
                if number >= skipped:
                    place = (step + number) * self.isa.lanes
                    e.store(self._turned, place, vector, self.isa.lanes)

        with e.loop(0, steps) as number:
            one(number * piece, number * (piece // size), 0)
        if rest:  # the last bytes, with some before them that are there already
            offset = shape.bytes - piece
            one(offset, offset // size, (piece - rest) // size)

    def _turned_piece(self, start: Any, piece: int) -> Sequence[Any]:
        """Vectors of elements, a lane a document, of a piece of each."""
        e, isa, lanes = self.emitter, self.isa, self.isa.lanes
        count = piece // (isa.element_bits // 8)
        stride = self.shape.documents * self.shape.bytes
        vectors = []
        for i in range(count):
            loads = [
                e.load(self.operands[1], start + (group + i) * stride, piece)
                for group in range(0, lanes, count)
            ]
            vectors.append(e.let(_side_by_side(loads, piece, isa)))
        # Interleaving the halves of a list as often as halves can be taken turns it.
        for _ in range(count.bit_length() - 1):
            half = count // 2
            vectors = [
                e.let(_interleaved(vectors[i], vectors[i + half], lanes, count, start))
                for i in range(half)
                for start in (0, half)
            ]
        return vectors

    def _compare(self, start: Any, rows: int) -> None:
        """Emit distances of some vectors of queries from the turned ones; the smallest is kept."""
        e, lanes = self.emitter, self.isa.lanes
        product = PopcountTile(e, self.isa, rows, 1, self._elements, self._table)
        product.emit(
            _Elements(e, self.isa, self.operands[0]),
            lambda row: (start + row) * self._elements,
            self._turned,
            lambda _: T.int32(0),
        )
        for row in range(rows):
            place = e.let((start + row) * lanes)
            best = T.min(e.load(self._nearest, place, lanes), product.vector(row, 0))
            e.store(self._nearest, place, best, lanes)

    def _sum_up(self, first: Any, text: Any) -> None:
        """Emit the scores of a text."""
        e, shape, lanes = self.emitter, self.shape, self.isa.lanes
        total = e.local("int32", lanes)
        for part in range(0, lanes, HALF):
            e.store(total, part, e.constant("int32", 0, HALF), HALF)
        with e.loop(0, shape.queries) as i:
            row = e.let((text * shape.queries + i) * lanes)
            for part in range(0, lanes, HALF):
                distance = e.cast("int32", e.load(self._nearest, row + part, HALF), HALF)
                e.store(total, part, e.load(total, part, HALF) + distance, HALF)
        scores, full = self.operands[2], e.constant("int32", shape.full, HALF)
        for part in range(0, lanes, HALF):
            distance = e.load(total, part, HALF)
            value = full - distance - distance
            if shape.texts == 1:
                e.store(scores, first + part, value, HALF)
                continue
            e.store(total, part, value, HALF)
            for lane in range(part, part + HALF):
                e.store(scores, (first + lane) * shape.texts + text, total[lane])


def _side_by_side(loads: Sequence[Any], piece: int, isa: Isa) -> Any:
    """Loads of bytes as one vector of elements."""
    whole = loads[0]
    if len(loads) > 1:
        whole = tirx.Shuffle(loads, [T.int32(i) for i in range(piece * len(loads))])
    if isa.element_bits == 8:
        return whole
    return T.call_intrin(f"{isa.element}x{isa.lanes}", "tirx.reinterpret", whole)


def _interleaved(a: Any, b: Any, lanes: int, count: int, start: int) -> Any:
    """Half the elements of a and b in turn, from `start` on in each piece of `count`."""
    places = [
        source * lanes + group + start + k
        for group in range(0, lanes, count)
        for k in range(count // 2)
        for source in range(2)
    ]
    return tirx.Shuffle([a, b], [T.int32(place) for place in places])
