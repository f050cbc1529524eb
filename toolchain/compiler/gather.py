"""Phase 4: floats that a kernel of ours cannot read in the order asked for are gathered before.

A `Copy` in front of the operator puts them in that order; TVM fuses it with what made them. The
picture of a convolution becomes `Lines` with its padding, so that the lines of a window are runs of
floats, however few colours there are. Bits are never gathered: their writers serve the orders that
are asked for, or the operator is refused.
"""

from __future__ import annotations

import numpy as np

from vitc.compiler.fuse import FLOAT_LINEAR
from vitc.compiler.graph import Graph, Op, Use, Value
from vitc.compiler.rules import RULES
from vitc.compiler.rules.lines import LINES
from vitc.targets.layouts.views import View

__all__ = ["COPY", "gather"]

COPY = "Copy"
_CONVOLUTION = 4
"""Axes of the weight of a convolution."""


def gather(graph: Graph) -> Graph:
    """Put a copy before every operator that reads floats in an order that it does not know."""
    ops: list[Op] = []
    for op in graph.ops:
        ops += _with_copies(op)
    return Graph(graph.inputs, graph.outputs, ops)


def _with_copies(op: Op) -> list[Op]:
    """An operator, and the copies that it needs before it."""
    rule = RULES.get((op.domain, op.kind))
    copies: list[Op] = []
    inputs = list(op.inputs)
    for i in rule.unread(op) if rule is not None else ():
        if op.is_a(FLOAT_LINEAR, "") and op.constant(1).ndim == _CONVOLUTION:
            lines, inputs[i] = _lines(op, op.use(i))
            op.attributes = {**op.attributes, "pads": (0,) * 4}
            copies += _with_copies(lines)
            continue
        copied = Value(f"{op.output.name}.gathered", "float", op.use(i).shape, shown=())
        copies.append(Op(COPY, "", (op.use(i),), copied, {}, op.layer))
        inputs[i] = Use(copied)
    op.inputs = tuple(inputs)
    return [*copies, op]


def _lines(op: Op, use: Use) -> tuple[Op, Use]:
    """A copy of a picture with the padding of a convolution, whose rows are lines, and the picture.

    Args:
        op: The convolution.
        use: The picture [height, width, colours].
    """
    height, width, colours = use.shape
    top, left, bottom, right = op.attributes.get("pads", (0,) * 4)
    shape = (top + height + bottom, left + width + right, colours)
    lines = Value(f"{op.output.name}.lines", "float", (shape[0], shape[1] * colours), shown=())
    copy = Op(LINES, "", (use,), lines, {"before": (top, left)}, op.layer)
    views: tuple[View, ...] = (("reshape", shape),)
    return copy, Use(lines, views, np.arange(np.prod(shape)).reshape(shape))
