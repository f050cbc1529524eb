"""Binary linear and sign are one operator, with bits out and no float in between.

    scale[o] I + b[o] + m[n,g] >= T        <=>  scale[o] I >= offset[o] + upper[n,g]
    scale[o] I + b[o] + m[n,g] <= T'       <=>  scale[o] I <= offset[o] + lower[n,g]

with offset = -b, upper = T - m, lower = T' - m. The threshold of row o and token n has rank two, so
two vectors are stored, not a matrix. Each constant is computed in float64 and rounded once, so that
no sum is a denormal (`vitc.passes.normal_range`). A scale whose products overflow is refused: they
would meet the infinity that stands for a side that never holds.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from vitc.dialect import DOMAIN
from vitc.passes.constants import add_constant, collapsed, constant, exact_constant
from vitc.passes.linear_chain import linear_chain, row_part
from vitc.passes.normal_range import stored_decision
from vitc.passes.rewrite import NoMatch, Rewrite, dimensions, producer, replace

__all__ = ["LinearThreshold"]

Float64 = npt.NDArray[np.float64]


class LinearThreshold(Rewrite):
    """BinaryLinear, Cast, Mul, Add.., [Reshape], Add, comparison -> BinaryLinearThreshold."""

    name = "linear_threshold"
    after = ("prelu_threshold",)
    anchors = frozenset({(DOMAIN, "Binarize"), ("", "Cast")})

    def rewrite(self, node: ir.Node, graph: ir.Graph) -> None:
        """Fuse the comparison at `node` with the binary linear before it."""
        value, upper, lower, comparisons = _comparison(node)
        chain = linear_chain(value, uses=1 if node.op_type == "Binarize" else 2)
        grouped = chain.reshape is not None
        upper, lower = (row_part(bound, grouped) - chain.rows for bound in (upper, lower))
        k = chain.linear.attributes["k"].as_int()
        with np.errstate(over="ignore"):
            # Kernels multiply half of the integer by twice the scale.
            if not np.isfinite(chain.scale * np.float32(2 * k)).all():
                raise NoMatch(f"a scale times {k} is beyond fp32")
        decision = stored_decision(chain.scale, -chain.columns, upper, lower, k)
        constants = [
            add_constant(graph, decision.scale, "scale"),
            add_constant(graph, decision.offset, "offset"),
            add_constant(graph, collapsed(decision.upper), "upper"),
            add_constant(graph, collapsed(decision.lower), "lower"),
        ]
        threshold = ir.node(
            "BinaryLinearThreshold",
            [*chain.linear.inputs, *constants],
            {"k": k},
            domain=DOMAIN,
        )
        nodes = [threshold]
        if chain.reshape is not None:
            bits = threshold.outputs[0]
            bits.shape = ir.Shape(dimensions(chain.linear.outputs[0]))
            bits.dtype = ir.DataType.UINT8
            nodes.append(
                ir.node("Reshape", [bits, chain.reshape.inputs[1]], chain.reshape.attributes)
            )
        replace(node.outputs[0], nodes, [*chain.sources, *comparisons])


def _comparison(node: ir.Node) -> tuple[ir.Value, Float64, Float64, list[ir.Node]]:
    """Return (value, upper, lower, nodes): bits of value >= upper or value <= lower."""
    if node.op_type == "Binarize":
        value, threshold, flip = node.inputs
        upper, flipped = exact_constant(threshold), constant(flip)
        if value is None or upper is None or flipped is None:
            raise NoMatch("the threshold is not constant")
        if flipped.any():
            raise NoMatch("the bits are flipped")
        return value, upper, np.full((1,) * upper.ndim, -np.inf), [node]
    if node.attributes["to"].as_int() != ir.DataType.UINT8:
        raise NoMatch("it is not a cast to bits")
    either = producer(node.inputs[0], "Or")
    above = producer(either.inputs[0], "GreaterOrEqual")
    below = producer(either.inputs[1], "LessOrEqual")
    value = above.inputs[0]
    upper, lower = exact_constant(above.inputs[1]), exact_constant(below.inputs[1])
    if value is None or value is not below.inputs[0] or upper is None or lower is None:
        raise NoMatch("the two comparisons are not of one value with constants")
    return value, upper, lower, [above, below, either, node]
