"""From a PyTorch module to a raw ONNX graph: its calls recorded, each of them translated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir
from onnx_ir import tensor_adapters
from torch import Tensor, nn

from vitc.dialect import DOMAIN, IR_VERSION, OPSET, VERSION
from vitc.errors import VitcError
from vitc.exporter.leaves import leaves, mapped
from vitc.exporter.recording import Call, PerImage, Value, record
from vitc.exporter.single_operator import translate_alone
from vitc.exporter.translation import ROWS, SIZED, Nodes, dimension

__all__ = ["capture"]


def capture(frozen: nn.Module, example: Tensor | Sequence[Tensor]) -> ir.Model:
    """Trace a frozen model into a raw graph with a dynamic batch.

    Args:
        frozen: Model in inference form (`vitc.models.freeze`).
        example: An input of the model, or several; the first axis of each is the batch.

    Returns:
        The graph, with opaque operators of the dialect and taps. Inputs and outputs are named as
        `vitc.exporter.recording.Recording` says.

    Raises:
        VitcError: If the model cannot be traced, or an operator has no form in ONNX.
    """
    recording = record(frozen, example)
    graph = ir.Graph(
        [_typed(ir.val(value.name), value) for value in recording.inputs],
        [],
        nodes=[],
        name="vitc",
        opset_imports={"": OPSET, DOMAIN: VERSION},
    )
    known = dict(zip(recording.inputs, graph.inputs, strict=True))
    nodes = Nodes(graph)

    def operand(leaf: Any) -> Any:
        if not isinstance(leaf, Value):
            return leaf
        if leaf not in known:
            known[leaf] = _held(leaf, nodes)
        return known[leaf]

    for call in recording.calls:
        for value, made in zip(call.results, _translated(call, operand, nodes), strict=True):
            known[value] = _typed(made, value)
    for name, value in recording.outputs.items():
        result = operand(value)
        if result.producer() is None or result.is_graph_output():
            result = _typed(nodes("Identity", result), value)
        result.name = name
        graph.outputs.append(result)
    return ir.Model(graph, ir_version=IR_VERSION)


def _translated(call: Call, operand: Any, nodes: Nodes) -> Sequence[ir.Value]:
    given = leaves((call.arguments, call.keywords))
    if call.operator not in SIZED and any(isinstance(leaf, PerImage) for leaf in given):
        raise VitcError(
            f"The model gives {call.operator} the number of images as a number.",
            "Write that step so that it computes each image by itself.",
        )
    row = ROWS.get(call.operator)
    if row is not None:
        arguments, keywords = mapped(operand, (call.arguments, call.keywords))
        nodes.wanted, nodes.results = call.results[0], call.results
        made = row(nodes, *arguments, **keywords)
        if made is not None:
            return [made] if isinstance(made, ir.Value) else made
    tensors = [operand(leaf) for leaf in given if isinstance(leaf, Value)]
    return translate_alone(call, tensors, nodes.graph)


def _held(value: Value, nodes: Nodes) -> ir.Value:
    """A parameter under its own name, or a constant."""
    if value.data is None:
        raise VitcError("The model reads a tensor that no operator made.")
    if not value.name:
        return nodes.constant(value.data.numpy())
    held = ir.val(value.name, const_value=tensor_adapters.TorchTensor(value.data, value.name))
    nodes.graph.register_initializer(held)
    return held


def _typed(made: ir.Value, value: Value) -> ir.Value:
    made.shape = ir.Shape([dimension(size) for size in value.shape])
    made.dtype = tensor_adapters.from_torch_dtype(value.dtype)
    return made
