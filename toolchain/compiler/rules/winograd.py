"""A convolution of 3 x 3 windows by Winograd's filtering, where that is faster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from vitc.compiler.form import Form
from vitc.compiler.graph import Array, Op
from vitc.compiler.plan import Buffer, Cost, Operand
from vitc.compiler.runs import PADDING, places_of
from vitc.targets.isa import Isa
from vitc.targets.kernels.winograd import (
    READ,
    SIDE,
    WinogradShape,
    WinogradTiles,
    winograd_kernel,
    winograd_weights_kernel,
)
from vitc.targets.layouts import Floats, Plain

if TYPE_CHECKING:
    from vitc.compiler.emit import Emission

__all__ = ["build_winograd", "winograd_tiles"]

_STEM: Final = "winograd"
_SIDES: Final = (3, 3)


def winograd_tiles(op: Op, read: Form, form: Form, isa: Isa) -> WinogradTiles | None:
    """How a FloatLinear is cut where Winograd's filtering is its fastest form; else None.

    Args:
        op: The product.
        read: How what it reads is held in memory.
        form: What it writes.
        isa: Instruction set.
    """
    weight, given, use = op.constant(1), op.attributes.get, op.use(0)
    if weight.shape[1:-1] != _SIDES or op.constant(2).ndim > 1 or given("remainders"):
        return None
    once = (1, 1)
    if tuple(given("strides", once)) != once or tuple(given("dilations", once)) != once:
        return None
    assert isinstance(form.layout, Floats)  # noqa: S101 - it offers no other
    assert isinstance(read.layout, Floats)  # noqa: S101 - no other form is asked for
    (lines, pixels), outputs = op.attributes["places"], len(weight)
    if form.layout.rows != lines * pixels:
        return None
    places = places_of(use, read.layout.stride)
    channels = weight.shape[-1]
    if not np.array_equal(places, places[..., :1] + np.arange(channels)):
        return None
    shape = WinogradShape(
        lines, pixels, channels, outputs, form.layout.stride, bool(op.number("relu"))
    )
    tiles = WinogradTiles(isa, shape)
    return tiles if tiles.pays else None


def build_winograd(
    op: Op, form: Form, emission: Emission, x: Operand, read: Form, tiles: WinogradTiles
) -> Buffer:
    """Transform the weights, then convolve."""
    assert isinstance(read.layout, Floats)  # noqa: S101 - no other form is asked for
    shape, weight = tiles.shape, op.constant(1)
    padded = np.zeros((tiles.columns * tiles.width, *weight.shape[1:]), np.float32)
    padded[: shape.outputs] = weight
    # [register tiles, width, 3, 3, channels] -> [register tiles, channels, 9, width]
    cut = padded.reshape(tiles.columns, tiles.width, -1, shape.channels).transpose(0, 3, 2, 1)
    bias = np.zeros(len(padded), np.float32)
    bias[: shape.outputs] = op.constant(2)
    made = emission.kernel(
        f"{_STEM}_weights",
        (shape,),
        lambda symbol, _: winograd_weights_kernel(symbol, tiles),
        tuned=False,
    )
    turned = emission.beside(
        made, [emission.constant(cut)], Plain(tiles.size, tiles.size), f"{op.output.tap}.weights"
    )
    kernel = emission.kernel(
        _STEM, (shape,), lambda symbol, _: winograd_kernel(symbol, tiles), tuned=False
    )
    operands: list[Operand] = [
        x,
        emission.constant(_table(op, read.layout)),
        emission.constant(np.zeros(shape.channels, np.float32)),
        turned,
        emission.constant(bias),
    ]
    fp = shape.lines * shape.pixels * weight.size
    return emission.step(op, form, kernel, operands, Cost(fp=fp))


def _table(op: Op, layout: Floats) -> Array:
    """Place of the first float of each pixel of each tile, int32 [tiles, 4, 4]."""
    first = places_of(op.use(0), layout.stride)[..., 0]
    before, counts = op.attributes.get("pads", (0,) * 4), op.attributes["places"]
    lines = []
    for axis in range(2):
        tiles = np.arange(-(-counts[axis] // SIDE))[:, None]
        line = tiles * SIDE - before[axis] + np.arange(READ)
        lines.append(np.where((line >= 0) & (line < first.shape[axis]), line, PADDING))
    y, x = lines[0][:, None, :, None], lines[1][None, :, None, :]
    table = np.where((y == PADDING) | (x == PADDING), PADDING, first[y, x])
    return table.reshape(-1, READ, READ).astype(np.int32)
