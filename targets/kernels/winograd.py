"""fp32 convolution of 3 x 3 windows by Winograd's minimal filtering F(2 x 2, 3 x 3).

A tile of 2 x 2 outputs takes 16 products a channel and output instead of 36 (Lavin and Gray, Fast
Algorithms for Convolutional Neural Networks, CVPR 2016):

    Y = A^T [ (G g G^T) * (B^T d B) ] A

with d the 4 x 4 pixels that the tile reads, g the weights of a window, and

    B^T = [1  0 -1  0]    G = [ 1    0    0 ]    A^T = [1  1  1  0]
          [0  1  1  0]        [1/2  1/2  1/2]          [0  1 -1 -1]
          [0 -1  1  0]        [1/2 -1/2  1/2]
          [0  1  0 -1]        [ 0    0    1 ]

For each of the 16 places of a tile the sum over channels is a matrix product of tiles x channels x
outputs, by the register tiles of `float_linear`.

Instruction set: any with fp32 vectors. Tile: Isa.float_rows tiles x Isa.float_tile vectors of
    Isa.float_lanes outputs, at most.
Layout: a picture in memory of any kind, whose pixels have all channels side by side; transformed
    weights [tiles of outputs][parts of channels][16][channels][outputs], made in the workspace
    first, so that a library holds the 9 of a window; fp32 rows out.

A task is a group of tiles and a block of outputs: of a part of the channels the pixels are
transformed on the stack, and so are sums before they are outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from tvm.script.ir_builder import tirx as T

from vitc.targets.isa import Isa
from vitc.targets.kernels.emitter import CACHE_LINE, Emitter, Kernel
from vitc.targets.kernels.float_tile import add_products

__all__ = [
    "READ",
    "SIDE",
    "WinogradShape",
    "WinogradTiles",
    "winograd_kernel",
    "winograd_weights_kernel",
]

SIDE: Final = 2
"""Outputs of a tile along a side."""
READ: Final = 4
"""Pixels that it reads along a side."""
PLACES: Final = READ**2
_WINDOW: Final = 3

_ON_STACK: Final = 96 << 10
"""Bytes of transformed pixels and sums: a thread of musl has a stack of 128 KiB."""

_ALIGNED: Final = 4
"""Floats of the vectors that are aligned wherever they lie on it."""

_BLOCK: Final = 64
"""Outputs that pass while pixels are transformed once, which takes as long as some 4 of them."""

_LEAST: Final = 16
"""Outputs, and channels of a part."""
_LEAST_WINDOWS: Final = 48
_BYTES_A_WINDOW: Final = 32 << 10
"""Transformed weights, for which there has to be one window more."""


@dataclass(frozen=True)
class WinogradShape:
    """Geometry of a convolution with 3 x 3 windows one pixel apart.

    Attributes:
        lines: Of the result.
        pixels: Of a line of it.
        channels: Of a pixel that is read.
        outputs: Of a pixel of the result.
        stride: Floats from one pixel of the result to the next.
        relu: Whether what is negative becomes 0.
    """

    lines: int
    pixels: int
    channels: int
    outputs: int
    stride: int
    relu: bool = False

    @property
    def tiles(self) -> tuple[int, int]:
        """Tiles along the height and the width of the result."""
        return -(-self.lines // SIDE), -(-self.pixels // SIDE)


@dataclass(frozen=True)
class WinogradTiles:
    """How the work is cut for an instruction set.

    Attributes:
        isa: Instruction set.
        shape: Geometry.
    """

    isa: Isa
    shape: WinogradShape

    @cached_property
    def vectors(self) -> int:
        """Vectors of all outputs."""
        return -(-self.shape.outputs // self.isa.float_lanes)

    @cached_property
    def columns(self) -> int:
        """Register tiles side by side for all outputs."""
        return -(-self.vectors // self.isa.float_tile)

    @cached_property
    def width(self) -> int:
        """Outputs of a register tile."""
        return -(-self.vectors // self.columns) * self.isa.float_lanes

    @cached_property
    def together(self) -> int:
        """Register tiles of a block of outputs; the last block may have fewer."""
        return max(1, min(_BLOCK // self.width, self.columns))

    @cached_property
    def blocks(self) -> int:
        """Blocks of outputs."""
        return -(-self.columns // self.together)

    @cached_property
    def height(self) -> int:
        """Tiles of a register tile, and of a group."""
        return self.isa.float_rows

    @cached_property
    def groups(self) -> int:
        """Groups of tiles."""
        down, across = self.shape.tiles
        return -(-down * across // self.height)

    @cached_property
    def part(self) -> int:
        """Channels that are transformed at once; 0 where no number of vectors divides them."""
        lanes, channels = self.isa.float_lanes, self.shape.channels
        room = _ON_STACK // (4 * PLACES * self.height) - self.together * self.width
        parts = [n for n in range(lanes, room + 1, lanes) if channels % n == 0]
        return max(parts, default=0)

    @property
    def slab(self) -> int:
        """Floats from the weights of one place to those of the next.

        A cache line more than there are: else all places would lie in one set of a cache.
        """
        return self.part * self.width + CACHE_LINE // 4

    @property
    def pays(self) -> bool:
        """Whether it is faster than `float_linear`, as it was measured to be on x86."""
        shape = self.shape
        if min(self.part, shape.outputs) < _LEAST:
            return False
        least = _LEAST_WINDOWS + 4 * self.size // _BYTES_A_WINDOW
        return shape.lines * shape.pixels >= least

    @property
    def size(self) -> int:
        """Floats of the transformed weights."""
        return self.columns * (self.shape.channels // self.part) * PLACES * self.slab


def winograd_weights_kernel(symbol: str, tiles: WinogradTiles) -> Kernel:
    """Build the transformation of the weights, G g G^T.

    Arguments of the C function: weight [register tiles][channels][9][width], out [register
    tiles][parts][16][channels of a part][width], a line behind each of the 16, begin, end.

    Args:
        symbol: Name of the C function.
        tiles: How the work is cut.

    Returns:
        The kernel. Its tasks are register tiles of outputs.
    """
    emitter = Emitter(symbol)
    lanes, width, part = tiles.isa.float_lanes, tiles.width, tiles.part
    taps = _WINDOW**2
    with emitter.open() as e:
        weight, out = e.pointers(weight="float32", out="float32")
        half = e.constant("float32", 0.5, lanes)

        def line(a: Any, b: Any, c: Any) -> list[Any]:
            ends, middle = e.let((a + c) * half), e.let(b * half)
            return [a, e.let(ends + middle), e.let(ends - middle), c]

        runs = e.loop(0, tiles.shape.channels // part)
        with e.loop(e.begin, e.end) as column, runs as run, e.loop(0, part) as k:
            parts = tiles.shape.channels // part
            read = e.let((column * tiles.shape.channels + run * part + k) * (taps * width))
            written = e.let((column * parts + run) * (PLACES * tiles.slab) + k * width)
            with e.loop(0, width // lanes) as vector:
                g = [
                    e.let(e.load(weight, read + tap * width + vector * lanes, lanes))
                    for tap in range(taps)
                ]
                down = [line(*(g[_WINDOW * i + j] for i in range(_WINDOW))) for j in range(_WINDOW)]
                for i in range(READ):
                    for j, value in enumerate(line(*(column_[i] for column_ in down))):
                        at = written + (READ * i + j) * tiles.slab + vector * lanes
                        e.store(out, at, value, lanes)
    return emitter.kernel(tiles.columns)


def winograd_kernel(symbol: str, tiles: WinogradTiles) -> Kernel:
    """Build the convolution.

    Arguments of the C function: x, places of the pixels of each tile [tiles][4][4] (int32), padding
    being -1, zeros [channels], transformed weights as `winograd_weights_kernel` makes them, bias
    [register tiles][width], out [lines * pixels, stride], begin, end.

    Args:
        symbol: Name of the C function.
        tiles: How the work is cut.

    Returns:
        The kernel. Its tasks are groups of tiles, block of outputs by block of outputs; the last
        group repeats the last tile rather than run over.
    """
    emitter = Emitter(symbol)
    with emitter.open() as e:
        body = _Body(e, tiles)
        with e.loop(e.begin, e.end) as task:
            block, group = e.split(task, tiles.groups)
            count = body.least(tiles.columns - block * tiles.together, tiles.together)
            with e.loop(0, tiles.shape.channels // tiles.part) as part:
                body.pixels(group, part)
                with e.loop(0, PLACES) as place, e.loop(0, count) as column:
                    body.products(place, block * tiles.together + column, column, part)
            body.outputs(group, block)
    macs = PLACES * tiles.groups * tiles.height * tiles.shape.channels
    return emitter.kernel(tiles.blocks * tiles.groups, fma=macs * tiles.columns * tiles.width)


class _Body:
    """Emits the parts of a task.

    Attributes:
        tiles: How the work is cut.
    """

    def __init__(self, emitter: Emitter, tiles: WinogradTiles) -> None:
        self.emitter, self.tiles = emitter, tiles
        self.x, self.table, zeros, self.weight, self.bias, self.out = emitter.pointers(
            x="float32", table="int32", zeros="float32", weight="float32", bias="float32",
            out="float32",
        )  # fmt: skip
        self.zeros = emitter.distance(self.x, zeros)
        self.row = tiles.together * tiles.width
        # What is on the stack begins 16 bytes anyway.
        held = emitter.scratch if tiles.isa.float_lanes > _ALIGNED else emitter.local
        self.turned = held("float32", PLACES * tiles.height * tiles.part)
        self.sums = held("float32", PLACES * tiles.height * self.row)

    def least(self, left: Any, right: int) -> Any:
        """The smaller of two numbers, of which TVM derives nothing: it fails at loops to minima."""
        number = self.emitter.local("int32", 1)
        self.emitter.store(number, 0, T.min(left, right))
        return self.emitter.let(number[0])

    def _tile(self, group: Any, t: Any) -> Any:
        """Number of a tile of a group."""
        down, across = self.tiles.shape.tiles
        number = self.emitter.let(group * self.tiles.height + t)
        if down * across % self.tiles.height:
            number = self.emitter.let(T.min(number, down * across - 1))
        return number

    def pixels(self, group: Any, part: Any) -> None:
        """Transform a part of the channels of the pixels that a group reads: B^T d B."""
        e, tiles, lanes = self.emitter, self.tiles, self.tiles.isa.float_lanes
        with e.loop(0, tiles.height) as t:
            first = e.let(self._tile(group, t) * PLACES)
            bases = e.local("int64", PLACES)
            for p in range(PLACES):
                place = e.cast("int64", e.let(self.table[first + p]))
                e.store(bases, p, T.Select(place >= 0, place, self.zeros))
            with e.loop(0, tiles.part // lanes) as vector:
                channel = e.let(part * tiles.part + vector * lanes)
                d = [e.let(e.load(self.x, bases[p] + channel, lanes)) for p in range(PLACES)]

                def line(a: Any, b: Any, c: Any, d: Any) -> list[Any]:
                    return [e.let(a - c), e.let(b + c), e.let(c - b), e.let(b - d)]

                down = [line(*d[j::READ]) for j in range(READ)]
                for i in range(READ):
                    for j, value in enumerate(line(*(column[i] for column in down))):
                        row = (READ * i + j) * tiles.height + t
                        e.store(self.turned, row * tiles.part + vector * lanes, value, lanes)

    def products(self, place: Any, tile: Any, column: Any, part: Any) -> None:
        """Add the products of a part of the channels, of one place and a register tile.

        Args:
            place: Of a tile.
            tile: Register tile of the outputs, of all.
            column: The same, of the block.
            part: Of the channels.
        """
        e, tiles, isa = self.emitter, self.tiles, self.tiles.isa
        lanes, height, width = isa.float_lanes, tiles.height, tiles.width
        parts = tiles.shape.channels // tiles.part
        sums = e.local("float32", height * width)
        slots = [(r, c) for r in range(height) for c in range(0, width, lanes)]

        def kept(r: int, c: int) -> Any:
            return (place * height + r) * self.row + column * width + c

        def begin(value: Any) -> None:
            for r, c in slots:
                e.store(sums, r * width + c, value(r, c), lanes)

        zero = e.constant("float32", 0, lanes)
        if parts == 1:
            begin(lambda _r, _c: zero)
        else:
            with T.If(T.EQ(part, 0)):
                with T.Then():
                    begin(lambda _r, _c: zero)
                with T.Else():
                    begin(lambda r, c: e.load(self.sums, kept(r, c), lanes))
        slab = e.let(((tile * parts + part) * PLACES + place) * tiles.slab)
        base = e.let(place * (height * tiles.part))
        loaded = isa.float_load
        with e.loop(0, tiles.part // loaded) as step:
            places = [base + r * tiles.part + step * loaded for r in range(height)]
            at = slab + step * (loaded * width)
            add_products(e, isa, sums, self.turned, places, self.weight, at, width, loaded)
        for r, c in slots:
            e.store(self.sums, kept(r, c), e.load(sums, r * width + c, lanes), lanes)

    def outputs(self, group: Any, block: Any) -> None:
        """Make outputs of the sums of a group: A^T M A, bias, ReLU."""
        e, tiles, shape = self.emitter, self.tiles, self.tiles.shape
        lanes = tiles.isa.float_lanes
        first = e.let(block * self.row)
        count = self.least(tiles.vectors - block * (self.row // lanes), self.row // lanes)
        ending = range(tiles.vectors * lanes, shape.stride, lanes)

        def line(a: Any, b: Any, c: Any, d: Any) -> list[Any]:
            return [e.let(e.let(a + b) + c), e.let(e.let(b - c) - d)]

        with e.loop(0, tiles.height) as t:
            y, x = e.split(self._tile(group, t), shape.tiles[1])
            top, left = e.let(y * SIDE), e.let(x * SIDE)

            def store(p: int, q: int, column: Any, value: Any) -> None:
                at = ((top + p) * shape.pixels + left + q) * shape.stride + column
                inside = [
                    first + 1 < size
                    for own, first, size in ((p, top, shape.lines), (q, left, shape.pixels))
                    if own and size % SIDE
                ]
                if not inside:
                    e.store(self.out, at, value, lanes)
                    return
                with T.If(inside[0] if len(inside) == 1 else T.And(*inside)), T.Then():
                    e.store(self.out, at, value, lanes)

            with e.loop(0, count) as vector:
                column = e.let(first + vector * lanes)
                rows = [(p * tiles.height + t) * self.row for p in range(PLACES)]
                m = [e.let(e.load(self.sums, row + vector * lanes, lanes)) for row in rows]
                down = [line(*m[j::READ]) for j in range(READ)]
                bias = e.let(e.load(self.bias, column, lanes))
                for p in range(SIDE):
                    for q, value in enumerate(line(*(each[p] for each in down))):
                        made = e.let(value + bias)
                        if shape.relu:
                            made = e.let(T.max(e.constant("float32", 0, lanes), made))
                        store(p, q, column, made)
            if ending:
                with T.If(T.EQ(block, 0)), T.Then():
                    for column in ending:
                        for p in range(SIDE):
                            for q in range(SIDE):
                                store(p, q, column, e.constant("float32", 0, lanes))
