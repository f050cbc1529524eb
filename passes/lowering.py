"""Lowering of the dialect to standard operators: bits stay unpacked from end to end.

A packed value is always made by PackBits, so each contraction is rewritten on the bits behind it,
and the PackBits go away. A scheme says how bits are stored and multiplied; the rest is shared.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from vitc.dialect import DOMAIN, unpack_bits
from vitc.dialect.bodies import set_functions
from vitc.errors import VitcError
from vitc.passes.constants import add_constant, constant
from vitc.passes.rewrite import dimensions, replace

__all__ = ["Emitter", "Lowering"]

Array = npt.NDArray[Any]

_VIEWS = frozenset({"Reshape", "Transpose", "Slice", "Concat"})
"""Operators that move bits and have the type of what they read; a roll is made of the last two."""


class Emitter:
    """Collects the nodes that replace one operator.

    Args:
        graph: Graph that gets the constants.
    """

    def __init__(self, graph: ir.Graph) -> None:
        self.graph = graph
        self.nodes: list[ir.Node] = []

    def op(
        self, op_type: str, inputs: Sequence[ir.Value | None], **attributes: int | list[int]
    ) -> ir.Value:
        """Add a node and return its output."""
        self.nodes.append(ir.node(op_type, inputs, attributes))
        return self.nodes[-1].outputs[0]

    def constant(self, array: Array, hint: str) -> ir.Value:
        """Add a constant."""
        return add_constant(self.graph, array, hint)


class Lowering(ir.passes.InPlacePass):
    """Rewrites every operator of the dialect on unpacked bits.

    Attributes:
        name: Name in reports and dumps.
        bits_dtype: Type that bits are stored in.
        integer_dtype: Type of sums of their products.
        count: How many operators the latest call replaced.
    """

    name: ClassVar[str]
    bits_dtype: ClassVar[ir.DataType]
    integer_dtype: ClassVar[ir.DataType]

    def __init__(self) -> None:
        self.count = 0
        self._lower: dict[str, Callable[[ir.Node, Emitter], None]] = {
            "Binarize": self._binarize,
            "BinaryLinear": self._linear,
            "BinaryLinearThreshold": self._linear_threshold,
            "BinaryLinearResidual": self._linear_residual,
            "BinaryScores": self._scores,
            "ByteLinear": self._byte_linear,
            "SoftmaxMask": self._softmax_mask,
            "RowBestMask": self._row_best_mask,
            "BiasedBestMask": self._biased_best_mask,
            "ElasticMask": self._elastic_mask,
            "MaskSignMatMul": self._mask_product,
            "IntegerThreshold": self._integer_threshold,
            "SumThreshold": self._sum_threshold,
        }

    @abc.abstractmethod
    def signs(self, condition: ir.Value, emit: Emitter) -> ir.Value:
        """Store the truth of a condition as a sign."""

    @abc.abstractmethod
    def mask(self, condition: ir.Value, emit: Emitter) -> ir.Value:
        """Store the truth of a condition as 0 or 1."""

    @abc.abstractmethod
    def linear(self, bits: ir.Value, weight: Array, emit: Emitter) -> ir.Value:
        """Multiply signs [.., K] by the signs of weight bits [O, K]; fp32 or int32 [.., O]."""

    @abc.abstractmethod
    def scores(self, query: ir.Value, key: ir.Value, emit: Emitter) -> ir.Value:
        """Multiply signs [.., N, K] by signs [.., M, K]: [.., N, M]."""

    @abc.abstractmethod
    def selected(self, mask: ir.Value, value: ir.Value, emit: Emitter) -> ir.Value:
        """Multiply a mask [.., N, J] by signs [.., D, J] (tokens last): [.., N, D]."""

    @abc.abstractmethod
    def as_float(self, integers: ir.Value, emit: Emitter) -> ir.Value:
        """Cast integers to fp32, where they are not."""

    @abc.abstractmethod
    def integer(self, array: Array, hint: str, emit: Emitter) -> ir.Value:
        """Make a constant that is compared with integers."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Replace every operator of the dialect in `model`, in place."""
        self.count = 0
        graph = model.graph
        for node in tuple(graph):
            if node.domain == DOMAIN and node.op_type != "PackBits":
                self._replace(node, graph)
        ir.passes.common.RemoveUnusedNodesPass()(model)
        for node in graph:
            self._retype(node)
        set_functions(model)
        return ir.passes.PassResult(model, modified=self.count > 0)

    def ensures(self, model: ir.Model) -> None:
        """Check that only standard operators are left."""
        left = sorted({f"{n.domain}.{n.op_type}" for n in model.graph if n.domain})
        if left:
            raise ir.passes.PostconditionError(f"{self.name} left {', '.join(left)}")

    def _replace(self, node: ir.Node, graph: ir.Graph) -> None:
        lower = self._lower.get(node.op_type)
        if lower is None:
            raise VitcError(
                f"{node.op_type} has no form in standard operators.",
                "Export with --format packed.",
            )
        output = node.outputs[0]
        emit = Emitter(graph)
        lower(node, emit)
        stored = {
            ir.DataType.UINT8: self.bits_dtype,
            ir.DataType.INT32: self.integer_dtype,
            None: None,
        }.get(output.dtype, output.dtype)
        if node.op_type == "ByteLinear":
            stored = output.dtype  # its sums have more bits than a float, in every form
        replace(output, emit.nodes, [node])
        if stored is not None:
            emit.nodes[-1].outputs[0].dtype = stored
        self.count += 1

    def _retype(self, node: ir.Node) -> None:
        # Layout operators hand on bits that may be stored in another type now.
        source, output = node.inputs[0] if node.inputs else None, node.outputs[0]
        if node.op_type in _VIEWS and source is not None and source.dtype:
            output.dtype = source.dtype

    def _bits(self, packed: ir.Value | None) -> ir.Value:
        pack = None if packed is None else packed.producer()
        if pack is None or pack.op_type != "PackBits" or pack.inputs[0] is None:
            raise VitcError(
                f"{'A packed input' if packed is None else packed.name} is not made by PackBits.",
                "Export the model again from its checkpoint.",
            )
        return pack.inputs[0]

    def _weight(self, node: ir.Node) -> Array:
        packed = _array(node.inputs[1], node)
        return unpack_bits(packed, node.attributes["k"].as_int())

    def _binarize(self, node: ir.Node, emit: Emitter) -> None:
        x, threshold, flip = node.inputs
        condition = emit.op("GreaterOrEqual", [x, threshold])
        if _array(flip, node).any():
            condition = emit.op("Xor", [condition, flip])
        self.signs(condition, emit)

    def _linear(self, node: ir.Node, emit: Emitter) -> None:
        self.linear(self._bits(node.inputs[0]), self._weight(node), emit)

    def _scaled(self, node: ir.Node, emit: Emitter) -> ir.Value:
        integers = self.linear(self._bits(node.inputs[0]), self._weight(node), emit)
        return emit.op("Mul", [self.as_float(integers, emit), node.inputs[2]])

    def _linear_threshold(self, node: ir.Node, emit: Emitter) -> None:
        scaled = self._scaled(node, emit)
        offset, upper, lower = node.inputs[3:]
        rows = _array(offset, node).size
        above = emit.op("GreaterOrEqual", [scaled, _bound(offset, upper, rows, node, emit)])
        if not np.isneginf(_array(lower, node)).all():
            below = emit.op("LessOrEqual", [scaled, _bound(offset, lower, rows, node, emit)])
            above = emit.op("Or", [above, below])
        self.signs(above, emit)

    def _linear_residual(self, node: ir.Node, emit: Emitter) -> None:
        scaled = self._scaled(node, emit)
        bias, gain, residual = node.inputs[3:]
        branch = emit.op("Add", [scaled, bias])
        if (_array(gain, node) != 1).any():
            branch = emit.op("Mul", [branch, gain])
        if node.attributes["transposed"].as_int():
            rank = len(dimensions(node.outputs[0]))
            order = [*range(rank - 2), rank - 1, rank - 2]
            branch = emit.op("Transpose", [branch], perm=order)
        emit.op("Add", [residual, branch])

    def _scores(self, node: ir.Node, emit: Emitter) -> None:
        self.scores(self._bits(node.inputs[0]), self._bits(node.inputs[1]), emit)

    def _byte_linear(self, node: ir.Node, emit: Emitter) -> None:
        x = node.inputs[0]
        middle = emit.constant(np.array(_MIDDLE, np.uint8), "middle")
        base = emit.constant(np.array(_BASE, np.int32), "base")
        total: ir.Value | None = None
        for digits in _array(node.inputs[1], node).astype(np.int32):
            moved = emit.constant((digits.T + _MIDDLE).astype(np.uint8), "weight")
            if total is not None:
                total = emit.op("Mul", [total, base])
            # By uint8, not by int8, as in the operator's body.
            dot = emit.op("MatMulInteger", [x, moved, None, middle])
            total = dot if total is None else emit.op("Add", [total, dot])

    def _softmax_mask(self, node: ir.Node, emit: Emitter) -> None:
        p = node.inputs[0]
        ratio = np.array(node.attributes["ratio"].as_float(), dtype=np.float32)
        axis = emit.constant(np.array([-1]), "axis")
        least = emit.op("Mul", [emit.constant(ratio, "ratio"), emit.op("ReduceMax", [p, axis])])
        self.mask(emit.op("GreaterOrEqual", [p, least]), emit)

    def _row_best_mask(self, node: ir.Node, emit: Emitter) -> None:
        scores = node.inputs[0]
        distance = np.array(2 * node.attributes["slack"].as_int(), dtype=np.int32)
        best = emit.op("ReduceMax", [scores, emit.constant(np.array([-1]), "axis")])
        least = emit.op("Sub", [best, self.integer(distance, "slack", emit)])
        self.mask(emit.op("GreaterOrEqual", [scores, least]), emit)

    def _biased_best_mask(self, node: ir.Node, emit: Emitter) -> None:
        scores, bias, excluded = node.inputs
        assert scores is not None  # noqa: S101 - a file is validated where it is loaded
        biased = emit.op("Add", [self.as_float(scores, emit), bias])
        if _array(excluded, node).any():
            never = emit.constant(np.array(-np.inf, dtype=np.float32), "never")
            biased = emit.op("Where", [excluded, never, biased])
        best = emit.op("ReduceMax", [biased, emit.constant(np.array([-1]), "axis")])
        cut = np.array(node.attributes["cut"].as_float(), dtype=np.float32)
        least = emit.op("Sub", [best, emit.constant(cut, "cut")])
        self.mask(emit.op("GreaterOrEqual", [biased, least]), emit)

    def _elastic_mask(self, node: ir.Node, emit: Emitter) -> None:
        scores, terms, least = node.inputs
        axis = emit.constant(np.array([-1]), "axis")
        above = emit.op("Sub", [emit.op("ReduceMax", [scores, axis]), scores])
        half = emit.constant(np.array(0.5, dtype=np.float32), "half")
        distance = emit.op("Mul", [self.as_float(above, emit), half])
        h = emit.op("Cast", [distance], to=int(ir.DataType.INT32))
        total = emit.op("ReduceSum", [emit.op("Gather", [terms, h]), axis])
        self.mask(emit.op("Greater", [emit.op("Gather", [least, h]), total]), emit)

    def _mask_product(self, node: ir.Node, emit: Emitter) -> None:
        self.selected(self._bits(node.inputs[0]), self._bits(node.inputs[1]), emit)

    def _integer_threshold(self, node: ir.Node, emit: Emitter) -> None:
        x, threshold = node.inputs
        limit = self.integer(_array(threshold, node), "threshold", emit)
        self.signs(emit.op("GreaterOrEqual", [x, limit]), emit)

    def _sum_threshold(self, node: ir.Node, emit: Emitter) -> None:
        x, first, second = node.inputs
        assert x is not None  # noqa: S101 - a file is validated where it is loaded
        least = emit.op("Add", [first, second])
        self.signs(emit.op("GreaterOrEqual", [self.as_float(x, emit), least]), emit)


_BASE, _MIDDLE = 128, 128


def _array(value: ir.Value | None, node: ir.Node) -> Array:
    array = constant(value)
    if array is None:
        raise VitcError(
            f"An input of {node.op_type} {node.name} is not constant.",
            "Export the model again from its checkpoint.",
        )
    return array


def _bound(
    offset: ir.Value | None, bound: ir.Value | None, rows: int, node: ir.Node, emit: Emitter
) -> ir.Value:
    """Return offset[o] + bound[n, g] as [1|N, O]: constants only, so runtimes fold it."""
    tokens, groups = _array(bound, node).shape
    if groups == 1:
        return emit.op("Add", [offset, bound])
    split = emit.constant(np.array([1, groups, rows // groups]), "groups")
    column = emit.constant(np.array([2]), "last_axis")
    per_group = emit.op(
        "Add", [emit.op("Reshape", [offset, split]), emit.op("Unsqueeze", [bound, column])]
    )
    return emit.op("Reshape", [per_group, emit.constant(np.array([tokens, rows]), "rows")])
