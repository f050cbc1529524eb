"""Two shifts in a row are one.

    (x + a) + b  ->  x + (a + b)        a, b constant, one's shape inside the other's

The sum is taken in float64 and rounded once. A bias per row and a shift per token are not merged:
their sum would be a whole matrix.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from vitc.passes.constants import add_constant, exact_constant
from vitc.passes.rewrite import (
    NoMatch,
    Rewrite,
    broadcasts_within,
    producer,
    replace,
    with_constant,
)

__all__ = ["MergeShifts"]


class MergeShifts(Rewrite):
    """Add(Add(x, a), b) -> Add(x, a + b)."""

    name = "merge_shifts"
    anchors = frozenset({("", "Add")})

    def rewrite(self, node: ir.Node, graph: ir.Graph) -> None:
        """Merge the shift of `node` into the one before it."""
        inner, second = with_constant(node)
        before = producer(inner, "Add")
        x, first = with_constant(before)
        a, b = exact_constant(first), exact_constant(second)
        if a is None or b is None or first.dtype != second.dtype:
            raise NoMatch("the shifts are of different types")
        if not (broadcasts_within(a.shape, b.shape) or broadcasts_within(b.shape, a.shape)):
            raise NoMatch(f"shifts of shapes {a.shape} and {b.shape} do not nest")
        total = a + b
        rounded = total.astype(second.dtype.numpy() if second.dtype else np.float32)
        shift = add_constant(graph, rounded, "shift", exact=total)
        replace(node.outputs[0], [ir.node("Add", [x, shift])], [before, node])
