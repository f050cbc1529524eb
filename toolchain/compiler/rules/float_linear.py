"""FloatLinear: an fp32 product with constant weights, whose left operand is read where it lies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from vitc.compiler.form import Form, floats_of
from vitc.compiler.graph import Array, Op, Use, refused
from vitc.compiler.plan import Buffer, Cost, Operand
from vitc.compiler.rules.rule import Rule
from vitc.compiler.rules.winograd import build_winograd, winograd_tiles
from vitc.compiler.runs import Runs, places_of, windows_of
from vitc.targets.isa import Isa
from vitc.targets.kernels.float_linear import FloatLinearShape, blocks_of, float_linear_kernel
from vitc.targets.layouts import Floats

if TYPE_CHECKING:
    from vitc.compiler.emit import Emission

__all__ = ["FloatLinear"]

_STEM = "float_linear"
_MATRIX = 2
_SHORTEST = 3
"""Floats of a run, below which it is cheaper to copy them into their order first."""
_SHARED = 16
"""The same, where each float is read several times."""
_LONGEST = 256
"""Floats of a run, above which it is cut: the kernel multiplies so many at once."""


class FloatLinear(Rule):
    """`x @ weight.T + bias`, and no negative numbers where attribute `relu` says so.

    Inputs are x, weight [outputs, floats of a row], and bias [outputs], or the result on zeros
    [rows, outputs], which may begin with rows that no product is added to (a class token). Of a
    convolution, x is a picture [height, width, colours], the weight is [outputs, height, width,
    colours], and attribute `places` has the windows along height and width.
    """

    def unread(self, op: Op) -> list[int]:
        """Floats that lie too far apart, and those of few colours that windows share."""
        use = op.use(0)
        if op.constant(1).ndim == _MATRIX and (use.elements is None or use.whole):
            return []
        length = _read(op, floats_of(use.value))[0].length
        return [] if length >= (_SHARED if _overlaps(op) else _SHORTEST) else [0]

    def asks(self, op: Op, form: Form, isa: Isa) -> list[tuple[Use, Form]]:
        """Floats, in any order: it is read through."""
        del form, isa
        use = op.use(0)
        if use.value.kind != "float":
            raise refused(op, f"it reads {use.value.kind}, and is computed on floats only")
        return [(use, floats_of(use.value))]

    def build(self, op: Op, form: Form, emission: Emission) -> Buffer:
        """One product."""
        x, read = emission.floats(op, op.use(0))
        tiles = winograd_tiles(op, read, form, emission.isa)
        if tiles is not None:
            return build_winograd(op, form, emission, x, read, tiles)
        runs, weight = _read(op, read)
        runs = runs.cut(_LONGEST)
        outputs, depth = weight.shape
        tables, reads, distance = _tables(runs)
        assert isinstance(form.layout, Floats)  # noqa: S101 - it offers no other
        rows, count = runs.places.shape
        stride, bias = form.layout.stride, op.constant(2)
        by_row = bias.ndim == _MATRIX
        shape = FloatLinearShape(
            rows, outputs, count, runs.length, reads, distance, stride, bool(op.number("relu")),
            form.layout.rows - rows, by_row,
        )  # fmt: skip
        kernel = emission.kernel(
            _STEM, (shape,), lambda symbol, isa: float_linear_kernel(symbol, isa, shape)
        )
        _, widths = blocks_of(emission.tiled(_STEM, (shape,)), rows, outputs)
        padded = np.zeros((sum(widths), depth), np.float32)
        padded[:outputs] = weight
        added = np.zeros((*bias.shape[:-1], stride if by_row else sum(widths)), np.float32)
        added[..., :outputs] = bias
        ends = np.cumsum(widths)[:-1]
        blocks = [block.T.reshape(-1) for block in np.split(padded, ends)]
        operands: list[Operand] = [x]
        operands += [emission.constant(table) for table in tables]
        operands += [emission.constant(np.concatenate(blocks)), emission.constant(added)]
        return emission.step(op, form, kernel, operands, Cost(fp=rows * weight.size))


def _overlaps(op: Op) -> bool:
    """Whether it is a convolution whose windows share floats."""
    sides, strides = op.constant(1).shape[1:-1], op.attributes.get("strides", (1, 1))
    return any(side > stride for side, stride in zip(sides, strides, strict=False))


def _read(op: Op, read: Form) -> tuple[Runs, Array]:
    """How the left operand is read, as it is held in memory, and the weight to that."""
    layout, use, weight = read.layout, op.use(0), op.constant(1)
    assert isinstance(layout, Floats)  # noqa: S101 - no other form is asked for
    places = places_of(use, layout.stride)
    if weight.ndim == _MATRIX:
        return Runs.of(places.reshape(-1, use.shape[-1])), weight
    taps = windows_of(places, op, weight.shape[1:-1])
    # A picture lies colour by colour as an input, and as rows of channels else.
    orders = (0, 1, 2, 3), (0, 3, 1, 2)
    outputs, rows = len(weight), len(taps)
    runs = [Runs.of(taps.transpose(order).reshape(rows, -1)) for order in orders]
    best = max(range(len(orders)), key=lambda i: runs[i].length)
    return runs[best], weight.transpose(orders[best]).reshape(outputs, -1)


def _tables(runs: Runs) -> tuple[list[Array], Literal["rows", "corners", "table", "padded"], int]:
    """Tables of places, what they are, and the distance of rows where they need none."""
    if runs.distance is not None:
        return [], "rows", runs.distance
    if runs.corners is not None:
        return [places.astype(np.int32) for places in runs.corners], "corners", 0
    table = runs.places.T.astype(np.int32)
    if not runs.padded:
        return [table], "table", 0
    return [table, np.zeros(runs.length, np.float32)], "padded", 0
