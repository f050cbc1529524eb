"""Binary linear, gain and residual sum are one operator.

    r + gain * (scale[o] I + b[o])              gain per token, or none
    r + gain * (scale[o] I + b[o])^T            the SI branch: the product is transposed first

One pass over the residual stream instead of four, with the operations in the order of the model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from vitc.dialect import DOMAIN
from vitc.passes.constants import add_constant, collapsed, constant
from vitc.passes.linear_chain import LinearChain, linear_chain
from vitc.passes.rewrite import NoMatch, Rewrite, dimensions, producer, replace, with_constant

__all__ = ["Residual"]


@dataclass(frozen=True, eq=False)
class _Branch:
    chain: LinearChain
    gain: npt.NDArray[np.float32]
    transposed: bool
    sources: tuple[ir.Node, ...]


class Residual(Rewrite):
    """BinaryLinear, Cast, Mul, Add, [Transpose, Mul], Add -> BinaryLinearResidual."""

    name = "residual"
    after = ("linear_threshold",)
    anchors = frozenset({("", "Add")})

    def rewrite(self, node: ir.Node, graph: ir.Graph) -> None:
        """Fuse the sum at `node` with the branch that one of its operands is."""
        reasons = []
        for residual, value in (node.inputs, node.inputs[::-1]):
            if residual is None or value is None:
                raise NoMatch("an operand is missing")
            try:
                branch = _branch(value)
                if constant(residual) is not None:
                    raise NoMatch("the residual is constant")
                if dimensions(residual) != dimensions(value):
                    raise NoMatch("the residual is not shaped as the branch")
            except NoMatch as reason:
                reasons.append(str(reason))
                continue
            _fuse(node, graph, branch, residual)
            return
        raise NoMatch("; ".join(reasons))


def _branch(value: ir.Value) -> _Branch:
    gains: list[tuple[npt.NDArray[np.float32], bool]] = []
    sources: list[ir.Node] = []
    transposed = False
    while (node := value.producer()) is not None and node.op_type in ("Mul", "Transpose"):
        producer(value, node.op_type)
        data: ir.Value | None
        if node.op_type == "Transpose":
            data = node.inputs[0]
            rank = len(dimensions(value))
            swapped = (*range(rank - 2), rank - 1, rank - 2)
            if transposed or data is None or node.attributes["perm"].as_ints() != swapped:
                raise NoMatch("the transpose is not one of the last two axes")
            transposed = True
        else:
            data, by = with_constant(node)
            scaled = data.producer()
            if scaled is not None and scaled.op_type == "Cast":
                break
            array = constant(by)
            if array is None or array.dtype != np.float32:
                raise NoMatch("the gain is not fp32")
            gains.append((array, not transposed))
        sources.insert(0, node)
        value = data
    if len(gains) > 1:
        raise NoMatch("there are two gains")
    chain = linear_chain(value)
    if chain.reshape is not None or chain.rows.any():
        raise NoMatch("there is a shift per token between the linear and the sum")
    gain = np.ones((1, 1), dtype=np.float32)
    if gains:
        array, outside = gains[0]
        gain = _per_token(array, outside and transposed)
    return _Branch(chain, gain, transposed, (*chain.sources, *sources))


def _per_token(gain: npt.NDArray[np.float32], behind_transpose: bool) -> npt.NDArray[np.float32]:
    core = gain.reshape((1, 1, *gain.shape)[-max(2, gain.ndim) :])
    if behind_transpose:
        core = np.swapaxes(core, -1, -2)
    if any(size != 1 for size in (*core.shape[:-2], core.shape[-1])):
        raise NoMatch(f"a gain of shape {gain.shape} is not one per token of the linear")
    return core.reshape(-1, 1)


def _fuse(node: ir.Node, graph: ir.Graph, branch: _Branch, residual: ir.Value) -> None:
    chain = branch.chain
    constants = [
        add_constant(graph, chain.scale, "scale"),
        add_constant(graph, chain.columns.astype(np.float32), "bias"),
        add_constant(graph, collapsed(branch.gain), "gain"),
    ]
    fused = ir.node(
        "BinaryLinearResidual",
        [*chain.linear.inputs, *constants, residual],
        {"k": chain.linear.attributes["k"].as_int(), "transposed": int(branch.transposed)},
        domain=DOMAIN,
    )
    replace(node.outputs[0], [fused], [*branch.sources, node])
