"""Patch embedding: an fp32 matrix product that reads its patches straight from the image.

Instruction set: any with fp32 vectors. Tile: Isa.float_rows patches x Isa.float_tile vectors of
Isa.float_lanes channels.
Layout: image [3, H, W]; weights [C / tile, K, tile] with K in the order (colour, y, x); residual
    stream rows out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tvm.script.ir_builder import tirx as T

from vitc.targets.isa import Isa
from vitc.targets.kernels.emitter import Emitter, Kernel

__all__ = ["PatchShape", "float_tile", "patch_embedding_kernel"]


@dataclass(frozen=True)
class PatchShape:
    """Geometry of the embedding.

    Attributes:
        image: Height and width of the image, pixels.
        patch: Height and width of a patch, pixels.
        colours: Channels of the image.
        stride: Channels of the stream with padding: floats from one token to the next.
        prefix: Tokens before the patches (the class token).
    """

    image: tuple[int, int]
    patch: int
    colours: int
    stride: int
    prefix: int

    @property
    def grid(self) -> tuple[int, int]:
        """Patches along height and width."""
        return self.image[0] // self.patch, self.image[1] // self.patch


def float_tile(isa: Isa, stride: int) -> int:
    """Channels of one weight tile: as many vectors as the Isa holds and the width divides."""
    return next(
        tile * isa.float_lanes
        for tile in range(isa.float_tile, 0, -1)
        if stride % (tile * isa.float_lanes) == 0
    )


def patch_embedding_kernel(symbol: str, isa: Isa, shape: PatchShape) -> Kernel:
    """Build the embedding kernel.

    Arguments of the C function: image, weights, start [tokens, stride] (class token and positions,
    with the convolution's bias added to the patches' rows), out [tokens, stride], begin, end.

    Args:
        symbol: Name of the C function.
        isa: Instruction set.
        shape: Geometry.

    Returns:
        The kernel. Its tasks are tiles of patches; the last tile repeats patches rather than run
        over.
    """
    emitter = Emitter(symbol)
    tile, lanes, rows = float_tile(isa, shape.stride), isa.float_lanes, isa.float_rows
    vectors = tile // lanes
    height, width = shape.image
    grid_y, grid_x = shape.grid
    patches = grid_y * grid_x
    rows = min(rows, patches)
    tasks = -(-patches // rows)
    depth = shape.colours * shape.patch * shape.patch
    with emitter.open() as e:
        image, weight, start, out = e.pointers(
            image="float32", weight="float32", start="float32", out="float32"
        )
        copied = e.loop(0, shape.prefix * shape.stride // 4)
        with T.If(T.EQ(e.begin, 0)), T.Then(), copied as index:
            e.store(out, index * 4, e.load(start, index * 4, 4), 4)
        with (
            e.loop(0, shape.stride // tile) as block,
            e.loop(e.begin, e.end) as task,
        ):
            first = e.let(T.min(task * rows, patches - rows))
            corners: list[Any] = []
            for r in range(rows):
                y, x = T.floordiv(first + r, grid_x), T.floormod(first + r, grid_x)
                corners.append(e.let((y * width + x) * shape.patch))
            sums = e.local("float32", rows * tile)
            for slot in range(0, rows * tile, lanes):
                r, column = divmod(slot, tile)
                index = (first + r + shape.prefix) * shape.stride + block * tile + column
                e.store(sums, slot, e.load(start, index, lanes), lanes)
            with (
                e.loop(0, shape.colours) as colour,
                e.loop(0, shape.patch) as dy,
                e.loop(0, shape.patch) as dx,
            ):
                pixel = e.let((colour * height + dy) * width + dx)
                k = (colour * shape.patch + dy) * shape.patch + dx
                row = e.let((block * depth + k) * tile)
                loaded = [e.let(e.load(weight, row + v * lanes, lanes)) for v in range(vectors)]
                for r in range(rows):
                    value = e.let(e.splat(image[corners[r] + pixel], lanes))
                    for v in range(vectors):
                        slot = r * tile + v * lanes
                        e.store(sums, slot, e.load(sums, slot, lanes) + value * loaded[v], lanes)
            for slot in range(0, rows * tile, lanes):
                r, column = divmod(slot, tile)
                index = (first + r + shape.prefix) * shape.stride + block * tile + column
                e.store(out, index, e.load(sums, slot, lanes), lanes)
    return emitter.kernel(tasks)
