"""A shift and a sign on an integer are an integer threshold.

    [ x + m >= 0 ]  <=>  x >= ceil(-m)          x int32

The threshold then moves up through the reshape and transposes that gather heads, so that these move
bits instead of integers.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from vitc.dialect import DOMAIN
from vitc.passes.constants import add_constant, constant, exact_constant
from vitc.passes.rewrite import (
    NoMatch,
    Rewrite,
    dimensions,
    private,
    producer,
    replace,
    with_constant,
)

__all__ = ["IntegerThreshold"]

_INT32 = np.iinfo(np.int32)


class IntegerThreshold(Rewrite):
    """Cast, Add.., Binarize of int32 -> IntegerThreshold before the layout operators."""

    name = "integer_threshold"
    after = ("merge_shifts", "linear_threshold")
    anchors = frozenset({(DOMAIN, "Binarize")})

    def rewrite(self, node: ir.Node, graph: ir.Graph) -> None:
        """Replace the sign at `node` by a comparison of integers."""
        value, at, flip = node.inputs
        limit, flipped = exact_constant(at), constant(flip)
        if value is None or limit is None or flipped is None or flipped.any():
            raise NoMatch("the threshold is not constant, or the bits are flipped")
        sources = [node]
        while (before := value.producer()) is not None and before.op_type == "Add":
            producer(value, "Add")
            value, added = with_constant(before)
            limit = limit - np.asarray(exact_constant(added))
            sources.insert(0, before)
        cast = producer(value, "Cast")
        integers = cast.inputs[0]
        if integers is None or integers.dtype != ir.DataType.INT32:
            raise NoMatch("the value is not a shifted integer")
        if np.isnan(limit).any():
            raise NoMatch("the threshold is not a number")
        threshold = np.clip(np.ceil(limit), _INT32.min, _INT32.max).astype(np.int32)
        integers, threshold, layout = _above_layout(integers, threshold)
        bits = ir.node(
            "IntegerThreshold",
            [integers, add_constant(graph, threshold, "threshold")],
            domain=DOMAIN,
        )
        nodes = [bits]
        for moved in layout:
            _type_as_bits(nodes[-1].outputs[0], moved.inputs[0])
            inputs = [nodes[-1].outputs[0], *moved.inputs[1:]]
            nodes.append(ir.node(moved.op_type, inputs, moved.attributes))
        replace(node.outputs[0], nodes, [*layout, cast, *sources])


def _type_as_bits(bits: ir.Value, integers: ir.Value | None) -> None:
    if integers is not None:
        bits.shape, bits.dtype = integers.shape, ir.DataType.UINT8


def _above_layout(
    value: ir.Value, threshold: npt.NDArray[np.int32]
) -> tuple[ir.Value, npt.NDArray[np.int32], list[ir.Node]]:
    """Walk up from `value` while the threshold can follow.

    Returns:
        The value above the layout operators, the threshold for it, and those operators in order.
    """
    layout: list[ir.Node] = []
    while (node := value.producer()) is not None and private(value):
        source = node.inputs[0] if node.inputs else None
        if source is None or source.shape is None or value.shape is None:
            break
        if node.op_type == "Transpose":
            rank = len(dimensions(value))
            permutation = node.attributes["perm"].as_ints()
            padded = threshold.reshape((1,) * (rank - threshold.ndim) + threshold.shape)
            threshold = padded.transpose(np.argsort(permutation))
        elif (
            node.op_type == "Reshape"
            and _joins_last_axes(source, value)
            and (threshold.ndim == 0 or threshold.shape[-1] == 1)
        ):
            threshold = threshold[..., None] if threshold.ndim else threshold
        else:
            break
        layout.insert(0, node)
        value = source
    return value, threshold, layout


def _joins_last_axes(before: ir.Value, after: ir.Value) -> bool:
    *lead, heads, width = dimensions(before) if len(dimensions(before)) > 1 else (0, 0)
    *same, joined = dimensions(after)
    return (
        lead == same
        and isinstance(heads, int)
        and isinstance(width, int)
        and joined == heads * width
    )
