"""The dialect written out: every call becomes its body, in standard operators on packed bits.

For readers that know no functions of a model, such as OpenVINO. Weights stay as they are packed.
"""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir
from onnx_ir.passes import common

from vitc.dialect import DOMAIN
from vitc.dialect.metadata import TAP_KEY
from vitc.passes.constants import add_constant, evaluated

__all__ = ["inline_functions"]


def inline_functions(model: ir.Model) -> None:
    """Replace calls of the dialect's operators by their bodies, without branches.

    Args:
        model: Changed in place; new nodes have the metadata of the calls, and names that others may
            better. Constants that several bodies hold are there once.
    """
    graph = model.graph
    known = set(graph.initializers.values())
    marks = [_mark(node, graph) for node in tuple(graph) if node.domain == DOMAIN]
    common.InlinePass()(model)
    for mark in marks:
        _take_over(mark, graph)
    for node in tuple(graph):
        if (node.domain, node.op_type) == ("", "If"):
            _take_branch(node, graph)
    for node in tuple(graph):
        kept = node.outputs[0]
        if node.op_type == "Identity" and TAP_KEY not in kept.metadata_props and node.inputs[0]:
            kept.replace_all_uses_with(node.inputs[0], replace_graph_outputs=True)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    _compute_sizes(graph, known)
    shared: dict[tuple[object, ...], ir.Value] = {}
    for value in tuple(graph.initializers.values()):
        tensor = value.const_value
        if value in known or tensor is None:
            continue
        key = (tensor.dtype, tuple(tensor.shape), tensor.tobytes())
        value.replace_all_uses_with(shared.setdefault(key, value))
    common.RemoveUnusedNodesPass()(model)
    model.functions.clear()
    graph.opset_imports.pop(DOMAIN, None)


def _mark(node: ir.Node, graph: ir.Graph) -> ir.Node:
    """Put an identity behind a call that keeps what is known of its result: name, type and tap."""
    result = node.outputs[0]
    mark = ir.node("Identity", [result])
    kept = mark.outputs[0]
    result.replace_all_uses_with(kept, replace_graph_outputs=True)
    mark.replace_input_with(0, result)
    kept.shape, kept.type = result.shape, result.type
    kept.name, result.name = result.name, f"{result.name}/call"
    kept.metadata_props.update(result.metadata_props)
    result.metadata_props.clear()
    graph.insert_after(node, mark)
    return mark


def _take_over(mark: ir.Node, graph: ir.Graph) -> None:
    """Give what an identity kept to the value that the body made."""
    result, kept = mark.inputs[0], mark.outputs[0]
    if result is None or result.producer() is None:
        return
    result.name, kept.name = kept.name, result.name
    result.shape, result.type = kept.shape, kept.type
    result.metadata_props.update(kept.metadata_props)
    kept.replace_all_uses_with(result, replace_graph_outputs=True)
    graph.remove(mark, safe=True)


def _compute_sizes(graph: ir.Graph, known: Collection[ir.Value]) -> None:
    """Compute what bodies compute of their attributes and of the shapes of constants."""
    for node in tuple(graph):
        of_body = all(
            value is not None and value.is_initializer() and value not in known
            for value in node.inputs
        )
        source = node.inputs[0] if node.inputs else None
        of_shape = node.op_type == "Shape" and source is not None and source.is_initializer()
        array = evaluated(node.outputs[0]) if of_body or of_shape else None
        if array is not None:
            constant = add_constant(graph, array, "size")
            node.outputs[0].replace_all_uses_with(constant)


def _take_branch(node: ir.Node, graph: ir.Graph) -> None:
    """Put the branch of an If whose condition is known in its place."""
    condition = evaluated(node.inputs[0])
    if condition is None:
        return
    branch = node.attributes["then_branch" if condition.all() else "else_branch"].as_graph()
    results, inner = list(branch.outputs), list(branch)
    branch.remove(inner)
    graph.insert_before(node, inner)
    for value, result in zip(node.outputs, results, strict=True):
        value.replace_all_uses_with(result, replace_graph_outputs=True)
    graph.remove(node, safe=True)
