"""Same value, same name: what a file calls its parts follows from its graph alone.

torch.onnx numbers values as it meets them, and so does every rewrite; such numbers change with the
versions of both, and with how a graph came into memory. Here all of it is named anew when the
rewrites are done: a value after the first tap that it flows into, the operator that makes it, and
how many of those the tap has; a constant after that tap and the input it is. Taps, inputs, outputs
and PyTorch's parameters keep their names. Lists without an order of their own get one: attributes
and properties by name, constants by their first reader.
"""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from vitc.dialect import DOMAIN, OPS
from vitc.dialect.metadata import LAYER_KEY, MODULE_KEY, TAP_KEY
from vitc.dialect.naming import Names, name_nested, sort_attributes
from vitc.exporter.taps import downstream_taps
from vitc.passes.constants import hint_of

__all__ = ["name_everything"]

_ROLES = {("Reshape", 1): "shape", ("Gather", 1): "index", ("Expand", 1): "shape"}


def name_everything(model: ir.Model, parameters: Collection[str]) -> None:
    """Give every node, value and constant of the graph its canonical name, every list its order.

    Args:
        model: A graph behind all rewrites, its layers noted (`vitc.exporter.taps.name_layers`);
            changed in place.
        parameters: PyTorch names; constants that reach the file under one of them keep it.
    """
    graph = model.graph
    taps = downstream_taps(graph)
    made = [value for node in graph for value in node.outputs]
    kept = [
        str(value.name)
        for value in (*graph.inputs, *graph.outputs, *made)
        if value.is_graph_input() or value.is_graph_output() or TAP_KEY in value.metadata_props
    ]
    kept += [name for name in graph.initializers if name in parameters]
    _name_nodes(graph, taps, Names(kept))
    _name_constants(graph, taps, parameters, Names(kept))
    _order_constants(graph)
    for value in (*graph.inputs, *made, *graph.initializers.values()):
        _tidy(value, (TAP_KEY,))
    for node in graph:
        _tidy(node, (LAYER_KEY, MODULE_KEY))
        sort_attributes(node)


def _name_nodes(graph: ir.Graph, taps: dict[ir.Node, str], names: Names) -> None:
    for node in graph:
        node.name = names.unique(f"{taps[node]}/{node.op_type}")
        for index, value in enumerate(node.outputs):
            if not value.is_graph_output() and TAP_KEY not in value.metadata_props:
                value.name = f"{node.name}.{index}" if index else node.name
        name_nested(node, names)


def _name_constants(
    graph: ir.Graph, taps: dict[ir.Node, str], parameters: Collection[str], names: Names
) -> None:
    named: dict[ir.Value, str] = {}
    for node in graph:
        tap = taps[node]
        roles = OPS[node.op_type].inputs if node.domain == DOMAIN and node.op_type in OPS else ()
        for index, value in enumerate(node.inputs):
            if value is None or not value.is_initializer() or value in named:
                continue
            if str(value.name) in parameters:
                continue
            role = (
                roles[index]
                if roles
                else hint_of(value) or _ROLES.get((node.op_type, index), "constant")
            )
            named[value] = names.unique(f"{tap}.{role}")
    # First out of the way, since a new name may be the old one of another constant.
    for number, value in enumerate(named):
        value.name = f"{value.name}\0{number}"
    for value, name in named.items():
        value.name = name


def _order_constants(graph: ir.Graph) -> None:
    read = (value for node in graph for value in node.inputs if value is not None)
    ordered = dict.fromkeys(value for value in read if value.is_initializer())
    ordered.update(dict.fromkeys(graph.initializers.values()))
    for value in ordered:
        del graph.initializers[str(value.name)]
    for value in ordered:
        graph.initializers.add(value)


def _tidy(part: ir.Node | ir.Value, keys: Collection[str]) -> None:
    part.doc_string = None
    kept = sorted((key, text) for key, text in part.metadata_props.items() if key in keys)
    part.metadata_props.clear()
    part.metadata_props.update(kept)
