"""fp32 matrix product whose left operand is read through an order, so nothing is laid out for it.

Instruction set: any with fp32 vectors. Tile: Isa.float_rows rows x Isa.float_tile vectors of
    Isa.float_lanes outputs; of a row, Isa.float_load floats are loaded at once.
Layout: left operand in memory of any kind, of which a row is `runs` runs of `length` floats;
    weights [blocks of outputs][runs * length][outputs of a block]; fp32 rows out.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from tvm.script.ir_builder import tirx as T

from vitc.targets.isa import Isa
from vitc.targets.kernels.emitter import CACHE_LINE, Emitter, Kernel
from vitc.targets.kernels.float_tile import add_products
from vitc.targets.kernels.row_tiles import RowTiles
from vitc.targets.packing import round_up

__all__ = ["FloatLinearShape", "blocks_of", "float_linear_kernel"]

_IN_CACHE: Final = 128 << 10
"""Bytes of one operand that stay in the second-level cache while the other one passes."""

_IN_VAIN: Final = 1.04
"""Rows that the highest tile multiplies, over those of another, from which on that one is better:
a lower tile has fewer products for each load."""

_UNROLLED: Final = 8
"""Floats of a run, up to which no loop runs over them."""


@dataclass(frozen=True)
class _Ahead:
    """Weights that are fetched while others are multiplied, some with each step of a product.

    All at once would hold up the loads of the product: a core waits for few lines at a time.

    Attributes:
        begin: Place of the first.
        step: Floats from what is fetched with one step to that of the next.
    """

    begin: Any
    step: int


@dataclass(frozen=True)
class FloatLinearShape:
    """Geometry of a product.

    Attributes:
        rows: Rows.
        outputs: Outputs of a row.
        runs: Parts of a row of the left operand that lie in one piece.
        length: Floats of a run.
        reads: How the place of a run is found: rows at a `distance`, of one run each; a corner of
            the row and a place of the run from there; or a table of both, padding being -1.
        distance: Floats from one row of the left operand to the next.
        stride: Floats from one row of the result to the next.
        relu: Whether what is negative becomes 0.
        prefix: Rows of the result in front of those of the product.
        by_row: Whether each row of the result has biases of its own.
    """

    rows: int
    outputs: int
    runs: int
    length: int
    reads: Literal["rows", "corners", "table", "padded"]
    distance: int
    stride: int
    relu: bool = False
    prefix: int = 0
    by_row: bool = False


def blocks_of(isa: Isa, rows: int, outputs: int) -> tuple[int, list[int]]:
    """Rows of a tile, and the outputs of each block of them, in whole vectors.

    A lower tile takes over where fewer rows are multiplied in vain with it.
    """
    vectors = -(-outputs // isa.float_lanes)
    height = min(isa.float_rows, rows)
    multiplied = {h: -(-rows // h) * h for h in range(height, height // 2, -1)}
    fewest = min(multiplied, key=lambda h: multiplied[h])
    if multiplied[height] > _IN_VAIN * multiplied[fewest]:
        height = fewest
    most = isa.float_rows * isa.float_tile // height
    count = -(-vectors // most)
    width = -(-vectors // count)
    widths = [min(width, vectors - first) for first in range(0, vectors, width)]
    return height, [w * isa.float_lanes for w in widths]


def float_linear_kernel(symbol: str, isa: Isa, shape: FloatLinearShape) -> Kernel:
    """Build the product `x @ weight.T + bias`.

    Arguments of the C function: x, [corners [rows] and places [runs], or table [runs, rows]
    (int32),] [zeros [length], where there is padding,] weight, bias [outputs in whole vectors],
    or [prefix + rows, stride] by row, out [prefix + rows, stride], begin, end.

    Args:
        symbol: Name of the C function.
        isa: Instruction set.
        shape: Geometry.

    Returns:
        The kernel. Its tasks are tiles of rows, or blocks of outputs where one tile has all rows.
        The last tile repeats the last row rather than run over.
    """
    emitter = Emitter(symbol)
    height, widths = blocks_of(isa, shape.rows, shape.outputs)
    tiles = -(-shape.rows // height)
    with emitter.open() as e:
        body = _Body(e, isa, shape, height)
        body.tiles.put_in_front(body.bias)
        if tiles == 1:
            tasks = len(widths)
            _by_blocks(e, body, widths)
        else:
            tasks = tiles
            _by_rows(e, body, widths)
    return emitter.kernel(tasks)


def _by_blocks(e: Emitter, body: _Body, widths: list[int]) -> None:
    """One tile of rows: tasks are blocks of outputs, of which the last may be narrower."""
    full = widths.count(widths[0])
    with e.loop(e.begin, e.end) as task:
        with T.If(task < full), T.Then():
            body.tile(T.int32(0), task, widths[0], widths[0], clears=full == len(widths))
        if full < len(widths):
            with T.If(task >= full), T.Then():
                body.tile(T.int32(0), task, widths[0], widths[-1], clears=True)


def _by_rows(e: Emitter, body: _Body, widths: list[int]) -> None:
    """Tiles of rows in groups of which a part stays in a cache while its weights pass."""
    full = widths.count(widths[0])
    tiles = -(-body.shape.rows // body.height)
    group = max(1, _IN_CACHE // (body.height * body.part * 4))
    with e.loop(0, T.floordiv(e.end - e.begin + (group - 1), T.int32(group))) as number:
        first = e.let(e.begin + number * group)
        last = e.let(T.min(first + group, e.end))
        if body.parts > 1:
            with e.loop(first, last) as task:
                body.start(body.rows(task))
        with body.each_part() as part:
            with e.loop(0, full) as block, e.loop(first, last) as task:
                given = (task - first, min(group, tiles), part, widths[0])
                ahead = None
                if body.isa.float_ahead:
                    ahead = body.ahead(block, full, *given)
                else:
                    body.fetch(block + 1, *given)
                body.tile(task, block, widths[0], widths[0], part=part, ahead=ahead, clears=False)
            if full < len(widths):
                with e.loop(first, last) as task:
                    body.tile(task, T.int32(full), widths[0], widths[-1], part=part, clears=False)
        with e.loop(first, last) as task:
            body.tiles.clear(body.rows(task))


class _Body:
    """Emits tiles.

    Attributes:
        height: Rows of a tile.
        tiles: What they have in common with those of other products.
        part: Floats of a row in a part.
    """

    def __init__(self, emitter: Emitter, isa: Isa, shape: FloatLinearShape, height: int) -> None:
        self.emitter, self.isa, self.shape, self.height = emitter, isa, shape, height
        tables = {
            "rows": {},
            "corners": {"corners": "int32", "places": "int32"},
            "table": {"table": "int32"},
            "padded": {"table": "int32", "zeros": "float32"},
        }[shape.reads]
        self.x, *self.tables, self.weight, self.bias, self.out = emitter.pointers(
            x="float32", **tables, weight="float32", bias="float32", out="float32"
        )
        self.tiles = RowTiles(emitter, shape, height, isa.float_lanes, self.out)
        if shape.reads == "padded":
            # Where the zeros are, counted in floats from x.
            self.zeros = emitter.distance(self.x, self.tables[1])
        # A part is some runs, or some floats of the only run.
        count = shape.runs if shape.runs > 1 else shape.length
        step = isa.float_part // (shape.length if shape.runs > 1 else 1)
        step = min(max(1, step), count) if isa.float_part else count
        self.parts = -(-count // step)
        self.step = -(-count // self.parts)
        if shape.runs == 1:
            self.step = round_up(self.step, isa.float_load)
        self.part = self.step * (shape.length if shape.runs > 1 else 1)
        self.loaded = isa.float_load if shape.length >= isa.float_load else 1

    def fetch(self, block: Any, number: Any, tiles: int, part: Any, widest: int) -> None:
        """Have a share of the weights of the next block brought into the cache, by each tile."""
        e, shape = self.emitter, self.shape
        if shape.runs * shape.length * shape.outputs * 4 <= _IN_CACHE:
            return
        lines = -(-self.part * widest * 4 // CACHE_LINE)
        share = -(-lines // tiles)
        begin = block * (shape.runs * shape.length * widest)
        if part is not None:
            begin = begin + part * (self.part * widest)
        begin = e.let(begin + number * (share * CACHE_LINE // 4))
        with e.loop(0, share) as line:
            e.fetch(self.weight, begin + line * (CACHE_LINE // 4))

    def ahead(
        self, block: Any, full: int, number: Any, tiles: int, part: Any, widest: int
    ) -> _Ahead | None:
        """The share of the weights that are multiplied next, which a tile has fetched.

        Args:
            block: That is multiplied now; one of the `full` blocks that are as wide as any.
            full: Number of those.
            number: Of the tile.
            tiles: That share.
            part: That is multiplied now.
            widest: Outputs of a block.
        """
        shape = self.shape
        whole, slab = shape.runs * shape.length * widest, self.part * widest
        if shape.runs * shape.length * shape.outputs * 4 <= _IN_CACHE:
            return None
        begin = (block + 1) * whole
        if part is not None:
            begin, again = begin + part * slab, (part + 1) * slab
            begin = again if full == 1 else T.Select(block + 1 < full, begin, again)
        share = -(-slab // tiles)
        step = -(-share // (self.part // self.loaded))
        return _Ahead(self.emitter.let(begin + number * share), step)

    @contextmanager
    def each_part(self) -> Iterator[Any]:
        """The number of each part; None where there is one only."""
        if self.parts == 1:
            yield None
            return
        # As many as there are parts, for LLVM does not unroll the loop where it cannot know that.
        count = self._least(self.emitter.end + self.parts, self.parts)
        with self.emitter.loop(0, count) as part:
            yield part

    def rows(self, task: Any) -> list[Any]:
        """The rows of a tile; the last one repeats some, but none that are added to in parts."""
        shape, height = self.shape, self.height
        if self.parts == 1 or shape.rows % height == 0:
            return self.tiles.rows(task)
        first = self.emitter.let(task * height)
        return [self._least(first + r, shape.rows - 1) for r in range(height)]

    def _least(self, left: Any, right: int) -> Any:
        """The smaller of two numbers, of which TVM derives nothing: it fails at loops to minima."""
        number = self.emitter.local("int32", 1)
        self.emitter.store(number, 0, T.min(left, right))
        return self.emitter.let(number[0])

    def start(self, rows: list[Any]) -> None:
        """Biases, to which parts are added."""
        e, shape, lanes = self.emitter, self.shape, self.isa.float_lanes
        with e.loop(0, -(-shape.outputs // lanes)) as vector:
            for row in rows:
                at = (row + shape.prefix) * shape.stride + vector * lanes
                bias = e.load(self.bias, at if shape.by_row else vector * lanes, lanes)
                e.store(self.out, at, bias, lanes)

    def tile(
        self,
        task: Any,
        block: Any,
        widest: int,
        width: int,
        part: Any = None,
        ahead: _Ahead | None = None,
        *,
        clears: bool,
    ) -> None:
        """One part of the sums of a tile, or all of them."""
        e, shape, lanes, height = self.emitter, self.shape, self.isa.float_lanes, self.height
        rows = self.rows(task)
        columns = range(0, width, lanes)
        slots = [(r, column) for r in range(height) for column in columns]
        sums = e.local("float32", height * width)

        def written(r: int, column: int) -> Any:
            return (rows[r] + shape.prefix) * shape.stride + block * widest + column

        for r, c in slots:
            e.store(sums, r * width + c, e.constant("float32", 0, lanes), lanes)
        start = e.let(block * (shape.runs * shape.length * widest))
        self._sum(sums, rows, start, width, part, ahead)
        if shape.relu:
            least = T.float32(0)
            if part is not None:
                least = e.let(T.Select(T.EQ(part, self.parts - 1), least, T.float32(-np.inf)))
        if part is None and not shape.by_row:
            added = [e.let(e.load(self.bias, block * widest + c, lanes)) for c in columns]
        for r, c in slots:
            if part is not None:
                before = e.load(self.out, written(r, c), lanes)
            elif shape.by_row:
                before = e.load(self.bias, written(r, c), lanes)
            else:
                before = added[c // lanes]
            e.store(sums, r * width + c, e.load(sums, r * width + c, lanes) + before, lanes)
        # All are read before one is written: the last rows of the last tile may be one row.
        for r, c in slots:
            value = e.load(sums, r * width + c, lanes)
            if shape.relu:
                value = T.max(e.splat(least, lanes), value)
            e.store(self.out, written(r, c), value, lanes)
        if clears:
            self.tiles.clear(rows)

    def _sum(
        self,
        sums: Any,
        rows: list[Any],
        start: Any,
        width: int,
        part: Any,
        ahead: _Ahead | None,
    ) -> None:
        """Add the products of a part of a tile."""
        e, shape = self.emitter, self.shape
        if shape.reads == "rows":
            bases = [e.let(row * shape.distance) for row in rows]
            self._run(sums, bases, start, width, part, ahead=ahead)
            return
        if shape.reads == "corners":
            corners = self._places([self.tables[0][row] for row in rows])
        begin, end = 0, shape.runs
        if part is not None:
            begin = e.let(part * self.step)
            end = self._least(begin + self.step, shape.runs)
        with e.loop(begin, end) as run:
            at = e.let(start + run * (shape.length * width))
            here = None
            if ahead is not None:
                steps = (run - begin) * (shape.length // self.loaded)
                here = _Ahead(e.let(ahead.begin + steps * ahead.step), ahead.step)
            if shape.reads == "corners":
                (place,) = self._places([self.tables[1][run]])
                self._run(sums, corners, at, width, None, place, ahead=here)
            else:
                places = self._places([self.tables[0][run * shape.rows + row] for row in rows])
                self._run(sums, places, at, width, None, ahead=here)

    def _places(self, places: list[Any]) -> list[Any]:
        """Numbers of a table, in 64 bits: LLVM then adds to pointers, not to 32-bit numbers."""
        e = self.emitter
        bases = e.local("int64", len(places))
        for r, place in enumerate(places):
            base = e.cast("int64", e.let(place))
            if self.shape.reads == "padded":
                base = T.Select(base >= 0, base, self.zeros)
            # TVM narrows what it knows to be small, but for what comes out of memory.
            e.store(bases, r, base)
        return [e.let(bases[r]) for r in range(len(places))]

    def _run(
        self,
        sums: Any,
        bases: list[Any],
        start: Any,
        width: int,
        part: Any,
        place: Any = None,
        ahead: _Ahead | None = None,
    ) -> None:
        """Products of a run of every row, or of a part of it, `place` floats behind its base."""
        e, length = self.emitter, self.shape.length
        loaded = self.loaded
        whole = length // loaded
        begin, end, steps = T.int32(0), T.int32(whole), self.step // loaded
        if part is not None:
            begin = e.let(part * steps)
            end = self._least(begin + steps, whole)
        if part is None and length <= _UNROLLED:
            for step in range(whole):
                self._products(sums, bases, start, T.int32(step * loaded), loaded, width, place)
        else:
            with e.loop(begin, end) as step:
                if ahead is not None:
                    e.fetch_far(self.weight, ahead.begin + (step - begin) * ahead.step)
                self._products(sums, bases, start, step * loaded, loaded, width, place)
        rest = range(whole * loaded, length)
        if rest and part is not None:
            with T.If(T.EQ(part, self.parts - 1)), T.Then():
                for k in rest:
                    self._products(sums, bases, start, T.int32(k), 1, width, place)
            return
        for k in rest:
            self._products(sums, bases, start, T.int32(k), 1, width, place)

    def _products(
        self,
        sums: Any,
        bases: list[Any],
        start: Any,
        k: Any,
        loaded: int,
        width: int,
        place: Any,
    ) -> None:
        """Products of some floats of every row, `loaded` at once."""
        behind = k if place is None else place + k
        places = [base + behind for base in bases]
        at = start + k * width
        add_products(
            self.emitter, self.isa, sums, self.x, places, self.weight, at, width, loaded
        )
