"""What stands behind a binary linear: scale, biases per row, shifts per token, a split into heads.

    BinaryLinear, Cast, Mul(scale), Add.., [Reshape [..,N,O] -> [..,N,G,O/G]], Add..

computes `scale[o] I[n,o] + columns[o] + rows[n,g]`. Constants are summed in float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from vitc.dialect import DOMAIN
from vitc.passes.constants import constant, exact_constant
from vitc.passes.rewrite import NoMatch, dimensions, producer, with_constant

__all__ = ["LinearChain", "linear_chain", "row_part"]

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LinearChain:
    """A scaled and shifted binary linear.

    Attributes:
        linear: The BinaryLinear node.
        scale: fp32 [O].
        columns: float64 [O], sum of the shifts that depend on the row of the weight.
        rows: float64 [1|N, 1|G], sum of those that depend on the token and the group of rows.
        reshape: The node that splits rows into G groups, or None.
        sources: The nodes of the chain.
    """

    linear: ir.Node
    scale: npt.NDArray[np.float32]
    columns: Float64
    rows: Float64
    reshape: ir.Node | None
    sources: tuple[ir.Node, ...]


def row_part(shift: Float64, grouped: bool) -> Float64:
    """Return a shift as [1|N, 1|G].

    Args:
        shift: Shape that broadcasts to [.., N, O], or to [.., N, G, O/G] if `grouped`.
        grouped: Which of the two.

    Raises:
        NoMatch: It depends on the batch or on single rows of the weight.
    """
    core = _core(shift, 3 if grouped else 2)
    if core.shape[-1] != 1:
        raise NoMatch(f"a shift of shape {shift.shape} is not one per token")
    return core.reshape(core.shape[0], core.shape[1] if grouped else 1)


def _column_part(shift: Float64, groups: tuple[int, int] | None, width: int) -> Float64:
    core = _core(shift, 3 if groups else 2)
    if core.shape[0] != 1:
        raise NoMatch(f"a shift of shape {shift.shape} depends on both the token and the row")
    return np.broadcast_to(core[0], groups or (width,)).reshape(width)


def _core(shift: Float64, rank: int) -> Float64:
    padded = (1,) * (rank - shift.ndim) + shift.shape
    if any(size != 1 for size in padded[:-rank]):
        raise NoMatch(f"a shift of shape {shift.shape} depends on the batch")
    return shift.reshape(padded[-rank:])


def linear_chain(value: ir.Value, uses: int = 1) -> LinearChain:
    """Match the chain that ends in `value`.

    Args:
        value: The last value of the chain.
        uses: How often the caller's pattern uses it.

    Raises:
        NoMatch: `value` is something else, or a part of the chain is needed elsewhere.
    """
    reshape: ir.Node | None = None
    groups: tuple[int, int] | None = None
    shifts: list[tuple[Float64, bool]] = []
    sources: list[ir.Node] = []
    while (node := value.producer()) is not None and node.op_type in ("Add", "Reshape"):
        producer(value, node.op_type, uses=uses)
        uses = 1
        if node.op_type == "Reshape":
            if reshape is not None or node.inputs[0] is None:
                raise NoMatch("there are two reshapes")
            before, after = dimensions(node.inputs[0]), dimensions(value)
            *lead, heads, width = after
            if (
                not isinstance(heads, int)
                or not isinstance(width, int)
                or tuple(lead) != before[:-1]
                or before[-1] != heads * width
            ):
                raise NoMatch(f"the reshape from {before} to {after} does not split the last axis")
            reshape, groups, data = node, (heads, width), node.inputs[0]
        else:
            data, added = with_constant(node)
            shifts.append((np.asarray(exact_constant(added)), reshape is None))
        sources.insert(0, node)
        value = data
    scaling = producer(value, "Mul", uses=uses)
    data, by = with_constant(scaling)
    cast = producer(data, "Cast")
    if cast.attributes["to"].as_int() != ir.DataType.FLOAT:
        raise NoMatch("the integers are not cast to fp32")
    linear = producer(cast.inputs[0], "BinaryLinear", DOMAIN)
    width = dimensions(linear.outputs[0])[-1]
    if not isinstance(width, int):
        raise NoMatch("the number of rows is not known")
    scale = constant(by)
    if scale is None or scale.dtype != np.float32 or scale.size not in (1, width):
        raise NoMatch("the scale is not fp32 with one value per row")
    columns, rows = np.zeros(width), np.zeros((1, 1))
    for shift, behind_reshape in shifts:
        grouped = groups if behind_reshape else None
        # A trailing axis of length 1 means one value for all rows of the weight (of a group).
        if shift.ndim == 0 or shift.shape[-1] == 1:
            rows = rows + row_part(shift, grouped is not None)
        else:
            columns = columns + _column_part(shift, grouped, width)
    return LinearChain(
        linear,
        np.broadcast_to(scale.reshape(-1), (width,)),
        columns,
        rows,
        reshape,
        (linear, cast, scaling, *sources),
    )
