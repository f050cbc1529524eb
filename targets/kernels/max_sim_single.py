"""The scan of single vectors: one of each query, which are few, against one of each document.

Counting bits takes few instructions, so what makes scores of counts takes few, too. Machines that
count or sum up words of 64 bits: the counts of half a tile are added 32 bits higher to those of the
other half, and two registers become one by two shuffles and an addition, until 32 bits are a
document. With VPOPCNTDQ that makes 31 instructions for 16 documents of 256 bits, of which counting
and adding alone take 24. Machines that count bytes: two registers become one by adding neighbours.

Instruction set: any but those that count best in general registers. Tile: as many documents as a
register has lanes of 32 bits. Layout: packed rows as they come, of whole words. The documents that
end a range are taken together with some before them, whose scores are written twice; a range of
fewer than a tile is done pair by pair.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from vitc.targets.isa import Isa
from vitc.targets.kernels.emitter import CACHE_LINE, Emitter, Kernel
from vitc.targets.kernels.max_sim import AHEAD, MaxSimShape, PairScan, in_tiles

__all__ = ["fits_single", "single_kernel"]

_WORD = 8
"""Bytes of a count."""
_MOST_BYTES = 128
"""Of a document: what a tile reads is written out."""
_MOST_REGISTERS = 4
"""Registers of a document whose bytes are counted: more sums than that leave too few registers."""

_MOST_TEXTS = 8
"""Queries whose scores are put side by side in registers."""


def fits_single(isa: Isa, shape: MaxSimShape) -> bool:
    """Whether the form is for a scan: one vector on each side, of what is summed up at once."""
    if max(shape.queries, shape.documents) > 1 or shape.bytes > _MOST_BYTES:
        return False
    if shape.texts > (1 if isa.sums_pairs else _MOST_TEXTS):
        return False
    whole = not shape.bytes % _WORD
    if isa.sums_pairs:
        registers, rest = divmod(shape.bytes, isa.piece_bytes)
        return shape.bytes == _WORD or (not rest and registers <= _MOST_REGISTERS)
    return whole and isa.sums_words


def single_kernel(symbol: str, isa: Isa, shape: MaxSimShape) -> Kernel:
    """Build the scan of single vectors.

    Arguments of the C function: queries uint8 [texts, P], documents uint8 [.., P], scores int32
    [.., texts], begin, end.

    Returns:
        The kernel. Its tasks are documents, of which there are as many as a run says.
    """
    emitter = Emitter(symbol)
    with emitter.open() as e:
        operands = e.pointers(queries="uint8", documents="uint8", scores="int32")
        build = _PairSums if isa.sums_pairs else _WordSums
        sums = build(e, isa, shape, tuple(operands))
        tile, texts = sums.tile, shape.texts
        kept = None if texts == 1 else e.local("int32", texts * tile)
        full = e.constant("int32", shape.full, tile)

        def documents(place: Any) -> None:
            first = e.let(place)
            start = e.let(first * shape.bytes)
            for line in range(0, tile * shape.bytes, CACHE_LINE):
                e.fetch(operands[1], start + (AHEAD + line))
            if kept is None:
                distances = sums.distances(start, 0)
                e.store(operands[2], first, full - distances - distances, tile)
                return
            with e.loop(0, texts) as text:
                distances = sums.distances(start, text)
                e.store(kept, text * tile, full - distances - distances, tile)
            with e.loop(0, texts) as text:
                for document in range(tile):
                    place = (first + document) * texts + text
                    e.store(operands[2], place, kept[text * tile + document])

        in_tiles(PairScan(e, isa, shape, tuple(operands)), tile, documents)
    return emitter.kernel(0)


# --- words ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Counts:
    """A register of counts.

    Attributes:
        value: Words of 64 bits, each with a count of one document in its lower half, and of the
            one that is half a tile further in its upper.
        documents: Of each word, the former.
        added: How often registers were added up to it.
    """

    value: Any
    documents: tuple[int, ...]
    added: int = 0


@dataclass
class _WordSums:
    """Emits the distances of a tile of documents, counted in words; arguments as of `PairScan`."""

    emitter: Emitter
    isa: Isa
    shape: MaxSimShape
    operands: tuple[Any, Any, Any]

    def __post_init__(self) -> None:
        self._bytes = self.isa.lanes * self.isa.element_bits // 8
        self.tile = self._bytes // 4
        self._words = self._bytes // _WORD
        row = self.shape.bytes // _WORD
        # Registers of one document are added as they are.
        self._parts = 1 if row % self._words else row // self._words
        self._row = row // self._parts  # words of a document that are left
        even = self._row & -self._row
        # The last addition of two registers puts the documents in their order, too.
        self._levels = even.bit_length() - 1 - (even == self._row > 1)
        self._period = row // math.gcd(row, self._words)
        self._repeated = self._laid(row)
        self._queries = [] if self.shape.texts > 1 else self._query(0)

    def _laid(self, row: int) -> Any:
        """Emit the copy of each query's words, and the first of them again behind them."""
        e, length = self.emitter, row + self._words
        words = e.local("uint64", self.shape.texts * length)

        def lay(text: Any) -> None:
            for word in range(length):
                at = text * self.shape.bytes + word % row * _WORD
                value = _reinterpreted("uint64", e.load(self.operands[0], at, _WORD))
                e.store(words, text * length + word, value)

        if self.shape.texts == 1:
            lay(0)
        else:
            with e.loop(0, self.shape.texts) as text:
                lay(text)
        return words

    def _query(self, text: Any) -> list[Any]:
        """A query as the registers of documents meet it, from another word on in each."""
        e, row = self.emitter, self.shape.bytes // _WORD
        start = text * (row + self._words)
        places = (number * self._words % row for number in range(self._period))
        return [e.let(e.load(self._repeated, start + place, self._words)) for place in places]

    def distances(self, start: Any, text: Any) -> Any:
        """Emit the distances of a text from the documents from a byte on, int32 x tile."""
        if self.shape.texts > 1:
            self._queries = self._query(text)
        pending: list[_Counts] = []
        for number in range(self._row):
            pending.append(self._pair(start, number))
            while len(pending) > 1 and pending[-2].added == pending[-1].added < self._levels:
                pending[-2:] = [self._added(pending[-2:])]
        return self._ordered(pending)

    def _pair(self, start: Any, number: int) -> _Counts:
        """Emit the counts of a register of documents and of that half a tile further."""
        e, words = self.emitter, self._words
        low, high = (
            self._count(start, number * self._parts + half) for half in (0, self._row * self._parts)
        )
        if self.isa.adds_words:
            both = T.call_llvm_pure_intrin(
                f"uint64x{words}", self.isa.adds_words, low, high,
                e.constant("uint64", 1 << 32, words),
            )  # fmt: skip
        else:
            both = T.bitwise_or(low, T.shift_left(high, e.constant("uint64", 32, words)))
        owners = (number * words + word for word in range(words))
        return _Counts(e.let(both), tuple(word // self._row for word in owners))

    def _count(self, start: Any, number: int) -> Any:
        """Emit how many bits of the words of documents from a register on differ."""
        total = None
        for register in range(number, number + self._parts):
            at = start + register * self._bytes
            bits = self.emitter.load(self.operands[1], at, self._bytes)
            query = self._queries[register % len(self._queries)]
            apart = T.bitwise_xor(_reinterpreted(f"uint64x{self._words}", bits), query)
            count = T.popcount(apart)
            total = count if total is None else total + count
        return self.emitter.let(total)

    def _added(self, two: Sequence[_Counts]) -> _Counts:
        """Emit one register of two, each word of it the sum of two of one document."""
        words, owners = self._words, two[0].documents + two[1].documents
        if two[0].added:  # words of the two take turns: every second pair of words
            first = [at for at in range(2 * words) if not at & 2]
        else:  # words of a document are neighbours: of the two in turn, which is one instruction
            first = [at + side for at in range(0, words, 2) for side in (0, words)]
        second = [at + (2 if two[0].added else 1) for at in first]
        documents = tuple(owners[at] for at in first)
        if documents != tuple(owners[at] for at in second):
            raise AssertionError("words of two documents would be added")
        value = self._gathered([each.value for each in two], [first, second])
        return _Counts(value, documents, two[0].added + 1)

    def _ordered(self, counts: Sequence[_Counts]) -> Any:
        """Emit the sums of what is left of each document, in the order of documents, as int32."""
        half = self.tile // 2
        places: dict[int, list[int]] = {}
        for word, document in enumerate(owner for each in counts for owner in each.documents):
            places.setdefault(document, []).append(2 * word)
            places.setdefault(document + half, []).append(2 * word + 1)
        order = [places[document] for document in range(self.tile)]
        parts = [_reinterpreted(f"uint32x{self.tile}", each.value) for each in counts]
        sums = self._gathered(parts, list(zip(*order, strict=True)))
        return _reinterpreted(f"int32x{self.tile}", sums)

    def _gathered(self, registers: Sequence[Any], places: Sequence[Sequence[int]]) -> Any:
        """Emit the sum of elements of some registers at several lists of places."""
        total = None
        for each in places:
            part = self.emitter.let(_placed(registers, each))
            total = part if total is None else total + part
        return self.emitter.let(total)


# --- pairs of bytes -------------------------------------------------------------------------------


@dataclass
class _PairSums:
    """Emits the distances of four documents, whose counts are bytes of 16 byte registers.

    The registers of two documents become one by adding neighbours, until 32 bits are a document.
    """

    emitter: Emitter
    isa: Isa
    shape: MaxSimShape
    operands: tuple[Any, Any, Any]
    tile: ClassVar[int] = 4

    def __post_init__(self) -> None:
        e, size, row = self.emitter, self.isa.piece_bytes, self.shape.bytes
        if row < size:
            word = _reinterpreted("uint64", e.load(self.operands[0], 0, row))
            self._queries = [e.let(_reinterpreted(f"uint8x{size}", e.splat(word, size // row)))]
        else:
            starts = range(0, row, size)
            self._queries = [e.let(e.load(self.operands[0], start, size)) for start in starts]

    def distances(self, start: Any, _: Any) -> Any:
        """Emit the distances of the documents from a byte on, int32 x tile."""
        parts = len(self._queries)
        registers = self.tile * self.shape.bytes // (parts * self.isa.piece_bytes)
        counts = [self._count(start, number * parts) for number in range(registers)]
        while len(counts) > 1:
            counts = [self._halved(counts[at : at + 2]) for at in range(0, len(counts), 2)]
        total = counts[0]
        for bits in (8, 16):
            lanes = 8 * self.isa.piece_bytes // bits
            types = f"v{lanes // 2}i{2 * bits}.v{lanes}i{bits}"
            name = f"{self.isa.sums_pairs}.{types}"
            total = T.call_llvm_pure_intrin(f"uint{2 * bits}x{lanes // 2}", name, total)
        return _reinterpreted(f"int32x{self.tile}", total)

    def _count(self, start: Any, number: int) -> Any:
        """Emit how many bits of each byte of a document differ, from a register on."""
        total = None
        for part, query in enumerate(self._queries):
            at = start + (number + part) * self.isa.piece_bytes
            bits = self.emitter.load(self.operands[1], at, self.isa.piece_bytes)
            count = T.popcount(T.bitwise_xor(bits, query))
            total = count if total is None else total + count
        return self.emitter.let(total)

    def _halved(self, two: Sequence[Any]) -> Any:
        """Emit the sums of neighbours of two registers in one, still bytes."""
        places = range(2 * self.isa.piece_bytes)
        parts = [tirx.Shuffle(two, [T.int32(at) for at in places[start::2]]) for start in (0, 1)]
        return self.emitter.let(parts[0] + parts[1])


def _placed(registers: Sequence[Any], places: Sequence[int]) -> Any:
    """Elements at places in some registers, which a shuffle takes two at a time."""
    lanes, part = len(places), registers[0]
    if len(registers) == 1:
        return tirx.Shuffle([part], [T.int32(at) for at in places])
    for number, register in enumerate(registers[1:], start=1):
        inside = [at - number * lanes for at in places]
        kept = [at if number == 1 else lane for lane, at in enumerate(places)]
        taken = [
            lanes + at if 0 <= at < lanes else (was if at < 0 else 0)
            for at, was in zip(inside, kept, strict=True)
        ]
        part = tirx.Shuffle([part, register], [T.int32(at) for at in taken])
    return part


def _reinterpreted(dtype: str, value: Any) -> Any:
    return T.call_intrin(dtype, "tirx.reinterpret", value)
