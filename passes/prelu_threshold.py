"""PReLU, shift and sign are a threshold with one or two sides.

With slope a and shift c, [ prelu(u) + c >= 0 ] is

    c <  0, a >= 0:   u >= -c
    c <  0, a <  0:   u >= -c  or  u <= -c / a
    c >= 0, a >  0:   u >= -c / a
    c >= 0, a <= 0:   always

so `u >= upper or u <= lower`, with -inf for a side that always or never holds. Stored bounds are
rounded away from the other side, so that they decide for every fp32 u as the exact ones do.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from vitc.dialect import DOMAIN
from vitc.passes.constants import add_constant, exact_constant
from vitc.passes.rewrite import NoMatch, Rewrite, producer, replace, with_constant
from vitc.passes.sign import plain_sign

__all__ = ["PReluThreshold", "two_sides"]

Float64 = npt.NDArray[np.float64]


def two_sides(slope: Float64, shift: Float64) -> tuple[Float64, Float64]:
    """Return (upper, lower) of `prelu(u) + shift >= 0`, in the broadcast shape of the arguments."""
    a, c = np.broadcast_arrays(slope, shift)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        crossing = -c / a
    upper = np.where(c < 0, -c, np.where(a > 0, crossing, -np.inf))
    lower = np.where((c < 0) & (a < 0), crossing, -np.inf)
    return upper, lower


def _rounded(bound: Float64, *, up: bool) -> npt.NDArray[np.float32]:
    """Round to the fp32 bound that decides for every fp32 value as `bound` does."""
    nearest = bound.astype(np.float32)
    short = nearest < bound if up else nearest > bound
    beyond = np.nextafter(nearest, np.float32(np.inf if up else -np.inf))
    return np.where(short, beyond, nearest)


class PReluThreshold(Rewrite):
    """PRelu, Add, Binarize at 0 -> Binarize, or the OR of two comparisons."""

    name = "prelu_threshold"
    after = ("merge_shifts",)
    anchors = frozenset({(DOMAIN, "Binarize")})

    def rewrite(self, node: ir.Node, graph: ir.Graph) -> None:
        """Replace the sign behind a PReLU by comparisons in front of it."""
        value = plain_sign(node)
        shift = np.zeros(1)
        sources = [node]
        moved = value.producer()
        if moved is not None and moved.op_type == "Add":
            producer(value, "Add")
            value, added = with_constant(moved)
            shift = np.asarray(exact_constant(added))
            sources = [moved, node]
        prelu = producer(value, "PRelu")
        u, slope_value = prelu.inputs
        slope = exact_constant(slope_value)
        if u is None or slope is None:
            raise NoMatch("the slope is not constant")
        if not (np.isfinite(slope).all() and np.isfinite(shift).all()):
            raise NoMatch("the slope or the shift is not finite")
        upper, lower = two_sides(slope, shift)
        sources.insert(0, prelu)
        high = add_constant(graph, _rounded(upper, up=True), "upper", exact=upper)
        if np.isneginf(lower).all():
            flip = add_constant(graph, np.zeros((), dtype=bool), "flip")
            binarize = ir.node("Binarize", [u, high, flip], domain=DOMAIN)
            replace(node.outputs[0], [binarize], sources)
            return
        low = add_constant(graph, _rounded(lower, up=False), "lower", exact=lower)
        above = ir.node("GreaterOrEqual", [u, high])
        below = ir.node("LessOrEqual", [u, low])
        either = ir.node("Or", [above.outputs[0], below.outputs[0]])
        bits = ir.node("Cast", [either.outputs[0]], {"to": ir.DataType.UINT8})
        replace(node.outputs[0], [above, below, either, bits], sources)
