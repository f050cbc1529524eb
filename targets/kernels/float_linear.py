"""fp32 matrix product whose left operand is read through an order, so nothing is laid out for it.

Instruction set: any with fp32 vectors. Tile: `_TILES`: rows x vectors of outputs; a row is read
    float by float, or, where a product takes a lane of a vector, by vectors.
Layout: left operand in memory of any kind, of which a row is `runs` runs of `length` floats;
    weights [blocks of outputs][runs * length][outputs of a block]; fp32 rows out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from vitc.targets.isa import Isa
from vitc.targets.kernels.emitter import Emitter, Kernel

__all__ = ["FloatLinearShape", "blocks_of", "float_linear_kernel"]

_IN_CACHE: Final = 128 << 10
"""Bytes of the left operand that stay in the second-level cache while all weights pass."""


@dataclass(frozen=True)
class _Tile:
    """Rows, vectors of outputs, and floats of a row that are one load."""

    rows: int
    vectors: int
    loaded: int = 1


_TILES: Final = {
    "avx512-vpopcntdq": _Tile(6, 4),
    "avx512-amx": _Tile(6, 4),
    "avx2-pshufb": _Tile(6, 2),
    "ssse3-pshufb": _Tile(4, 2),
    "neon-cnt": _Tile(8, 2, 4),
    "neon32-vcnt": _Tile(6, 2),
}
"""By instruction set: sums, weights and what is read of a row fill the registers.

AArch64 multiplies by a lane of a vector; elsewhere one float is broadcast as it is loaded.
"""


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
    """

    rows: int
    outputs: int
    runs: int
    length: int
    reads: Literal["rows", "corners", "table", "padded"]
    distance: int
    stride: int
    relu: bool = False


def blocks_of(isa: Isa, rows: int, outputs: int) -> tuple[int, list[int]]:
    """Rows of a tile, and the outputs of each block of them, in whole vectors."""
    tile = _TILES[isa.name]
    vectors = -(-outputs // isa.float_lanes)
    height = min(tile.rows, rows)
    most = tile.rows * tile.vectors // height
    count = -(-vectors // most)
    width = -(-vectors // count)
    widths = [min(width, vectors - first) for first in range(0, vectors, width)]
    return height, [w * isa.float_lanes for w in widths]


def float_linear_kernel(symbol: str, isa: Isa, shape: FloatLinearShape) -> Kernel:
    """Build the product `x @ weight.T + bias`.

    Arguments of the C function: x, [corners [rows] and places [runs], or table [runs, rows]
    (int32),] [zeros [length], where there is padding,] weight, bias [outputs in whole vectors],
    out [rows, stride], begin, end.

    Args:
        symbol: Name of the C function.
        isa: Instruction set.
        shape: Geometry.

    Returns:
        The kernel. Its tasks are tiles of rows, or blocks of outputs where one tile has all rows.
        The last tile repeats rows rather than run over.
    """
    emitter = Emitter(symbol)
    height, widths = blocks_of(isa, shape.rows, shape.outputs)
    tiles = -(-shape.rows // height)
    with emitter.open() as e:
        body = _Body(e, isa, shape, height)
        if tiles == 1:
            tasks = len(widths)
            _by_blocks(e, body, widths)
        else:
            tasks = tiles
            _by_rows(e, body, widths, height * shape.runs * shape.length * 4)
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


def _by_rows(e: Emitter, body: _Body, widths: list[int], size: int) -> None:
    """Tiles of rows in groups that stay in a cache, through which the weights pass."""
    full = widths.count(widths[0])
    group = max(1, _IN_CACHE // size)
    with e.loop(0, T.floordiv(e.end - e.begin + (group - 1), T.int32(group))) as number:
        first = e.let(e.begin + number * group)
        last = e.let(T.min(first + group, e.end))
        with e.loop(0, full) as block, e.loop(first, last) as task:
            body.tile(task, block, widths[0], widths[0], clears=False)
        if full < len(widths):
            with e.loop(first, last) as task:
                body.tile(task, T.int32(full), widths[0], widths[-1], clears=False)
        with e.loop(first, last) as task:
            body.clear(body.first(task))


class _Body:
    """Emits tiles."""

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
        if shape.reads == "padded":
            far, near = (
                T.call_intrin("int64", "tirx.reinterpret", T.address_of(array[0]))
                for array in (self.tables[1], self.x)
            )
            # Where the zeros are, counted in floats from x.
            self.zeros = emitter.let(T.truncdiv(far - near, T.int64(4)))

    def first(self, task: Any) -> Any:
        """First row of a tile of rows."""
        shape, height = self.shape, self.height
        if shape.rows == height:
            return T.int32(0)
        if shape.rows % height == 0:
            return self.emitter.let(task * height)
        return self.emitter.let(T.min(task * height, shape.rows - height))

    def tile(self, task: Any, block: Any, widest: int, width: int, *, clears: bool) -> None:
        """One tile: sums over all runs, then bias and activation."""
        e, shape, lanes, height = self.emitter, self.shape, self.isa.float_lanes, self.height
        depth = shape.runs * shape.length
        first = self.first(task)
        sums = e.local("float32", height * width)
        for slot in range(0, height * width, lanes):
            e.store(sums, slot, e.constant("float32", 0, lanes), lanes)
        start = e.let(block * (depth * widest))
        if shape.reads == "rows":
            bases = [e.let((first + r) * shape.distance) for r in range(height)]
            self._run(sums, bases, start, width)
        else:
            corners = []
            if shape.reads == "corners":
                corners = [e.let(self.tables[0][first + r]) for r in range(height)]
            with e.loop(0, shape.runs) as run:
                if corners:
                    place = e.let(self.tables[1][run])
                    places = [corner + place for corner in corners]
                else:
                    places = [self.tables[0][run * shape.rows + first + r] for r in range(height)]
                bases = self._bases(places)
                self._run(sums, bases, e.let(start + run * (shape.length * width)), width)
        for column in range(0, width, lanes):
            added = e.let(e.load(self.bias, block * widest + column, lanes))
            for r in range(height):
                value = e.load(sums, r * width + column, lanes) + added
                if shape.relu:
                    value = T.max(e.constant("float32", 0, lanes), value)
                at = (first + r) * shape.stride + block * widest + column
                e.store(self.out, at, value, lanes)
        if clears:
            self.clear(first)

    def _bases(self, places: list[Any]) -> list[Any]:
        """Where runs begin, in 64 bits: LLVM then adds to pointers, not to 32-bit numbers."""
        e = self.emitter
        bases = e.local("int64", len(places))
        for r, place in enumerate(places):
            base = e.cast("int64", e.let(place))
            if self.shape.reads == "padded":
                base = T.Select(base >= 0, base, self.zeros)
            # TVM narrows what it knows to be small, but for what comes out of memory.
            e.store(bases, r, base)
        return [e.let(bases[r]) for r in range(len(places))]

    def _run(self, sums: Any, bases: list[Any], start: Any, width: int) -> None:
        """Products of a run of every row."""
        loaded, length = _TILES[self.isa.name].loaded, self.shape.length
        loaded = loaded if length >= loaded else 1
        whole = length // loaded
        with self.emitter.loop(0, whole) as part:
            self._products(sums, bases, start, part * loaded, loaded, width)
        for k in range(whole * loaded, length):
            self._products(sums, bases, start, T.int32(k), 1, width)

    def _products(
        self, sums: Any, bases: list[Any], start: Any, k: Any, loaded: int, width: int
    ) -> None:
        """Products of some floats of every row, `loaded` at once."""
        e, lanes = self.emitter, self.isa.float_lanes
        values = []
        if loaded > 1:
            values = [e.let(e.load(self.x, base + k, loaded)) for base in bases]
        for part in range(loaded):
            at = e.let(start + (k + part) * width)
            weights = [
                e.let(e.load(self.weight, at + column, lanes)) for column in range(0, width, lanes)
            ]
            for r, base in enumerate(bases):
                if loaded > 1:
                    value = e.let(tirx.Shuffle([values[r]], [T.int32(part)] * lanes))
                else:
                    value = e.let(e.splat(self.x[base + k], lanes))
                for column, weight in zip(range(0, width, lanes), weights, strict=True):
                    slot = r * width + column
                    e.store(sums, slot, e.load(sums, slot, lanes) + value * weight, lanes)

    def clear(self, first: Any) -> None:
        """Zeros between the outputs of each row and the next row."""
        e, shape, lanes = self.emitter, self.shape, self.isa.float_lanes
        start = -(-shape.outputs // lanes) * lanes
        for r in range(self.height):
            for column in range(start, shape.stride, lanes):
                at = (first + r) * shape.stride + column
                e.store(self.out, at, e.constant("float32", 0, lanes), lanes)
