"""A shift before a sign is its threshold.

    [ x + m >= 0 ]  <=>  [ x >= -m ]

also in fp32: a sum rounds to zero or changes its sign only where it is zero, since the difference
of two floats is a float if it is smaller than a normal one. What still has a shift here is no
linear and no batch norm: a layer norm whose floats are tapped. A shift that differs along the last
axis, which is packed, stays a sum: no kernel compares such bits with a threshold each.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from vitc.dialect import DOMAIN
from vitc.passes.constants import add_constant, exact_constant
from vitc.passes.normal_range import normal_threshold
from vitc.passes.rewrite import NoMatch, Rewrite, producer, replace, with_constant
from vitc.passes.sign import plain_sign

__all__ = ["ShiftThreshold"]


class ShiftThreshold(Rewrite):
    """Add, Binarize at 0 of floats -> Binarize(threshold)."""

    name = "shift_threshold"
    after = ("linear_threshold", "integer_threshold")
    anchors = frozenset({(DOMAIN, "Binarize")})

    def rewrite(self, node: ir.Node, graph: ir.Graph) -> None:
        """Move the shift before the sign `node` into its threshold."""
        moved = producer(plain_sign(node), "Add")
        value, added = with_constant(moved)
        shift = exact_constant(added)
        if shift is None or not np.isfinite(shift).all():
            raise NoMatch("the shift is not finite")
        if shift.ndim and shift.shape[-1] != 1:
            raise NoMatch(f"a shift of shape {shift.shape} is not one per row")
        limit = (-shift).astype(np.float32)
        # Rounded up where it was merged from two: the smallest fp32 value on the far side.
        low = limit < -shift
        limit = np.where(low, np.nextafter(limit, np.float32(np.inf)), limit)
        constants = (
            add_constant(graph, normal_threshold(limit), "threshold"),
            add_constant(graph, np.zeros(limit.shape, dtype=bool), "flip"),
        )
        binarize = ir.node("Binarize", [value, *constants], domain=DOMAIN)
        replace(node.outputs[0], [binarize], [moved, node])
