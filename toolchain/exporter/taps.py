"""What a graph says of its origin: tapped values, the layer of a node, the module of a weight."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from vitc.dialect import DOMAIN
from vitc.dialect.metadata import LAYER_KEY, MODULE_KEY, TAP_KEY, layer_of_tap
from vitc.errors import VitcError
from vitc.exporter.translation import TAP_OP

__all__ = ["downstream_taps", "name_layers", "name_modules", "name_outputs", "name_taps"]

_WEIGHT_SOURCE = frozenset(
    {"PackBits", "Slice", "Gather", "Identity", "Reshape", "Transpose", "Split"}
)


def name_modules(graph: ir.Graph) -> None:
    """Note on each BinaryLinear the module that owns its weight.

    A weight is followed up through slices to its initializer, `<module>.sign_bits`.
    """
    for node in graph:
        if (node.domain, node.op_type) != (DOMAIN, "BinaryLinear"):
            continue
        weight = node.inputs[1]
        while (
            weight is not None
            and (maker := weight.producer()) is not None
            and maker.op_type in _WEIGHT_SOURCE
        ):
            weight = maker.inputs[0]
        if weight is not None and weight.is_initializer():
            node.metadata_props[MODULE_KEY] = str(weight.name).rpartition(".")[0]


def name_taps(graph: ir.Graph) -> None:
    """Turn Tap nodes into names of the values they tap.

    Raises:
        VitcError: A name is used for two values.
    """
    seen: set[str] = set()
    ports = {value.name: value for value in (*graph.inputs, *graph.outputs)}
    for node in tuple(graph):
        if (node.domain, node.op_type) != (DOMAIN, TAP_OP):
            continue
        name = node.attributes["name"].as_string()
        value, tapped = node.inputs[0], node.outputs[0]
        if name in seen:
            raise VitcError(
                f"Two values are tapped as {name}.", "Give every tap of the model its own name."
            )
        if ports.get(name, tapped) is not tapped:
            raise VitcError(
                f"{name} is tapped, and is the name of another value that goes in or comes out.",
                "Give the tap a name of its own.",
            )
        seen.add(name)
        if value is None:
            raise VitcError(f"The tap {name} has no value.")
        if value.producer() is None or TAP_KEY in value.metadata_props or value.is_graph_output():
            node.op_type, node.domain = "Identity", ""
            node.attributes.clear()
            tapped.name = name
            tapped.metadata_props[TAP_KEY] = name
            continue
        tapped.replace_all_uses_with(value, replace_graph_outputs=True)
        graph.remove(node, safe=True)
        value.shape, value.type = tapped.shape or value.shape, tapped.type or value.type
        value.name = name
        value.metadata_props[TAP_KEY] = name


def name_outputs(graph: ir.Graph, names: Sequence[str]) -> None:
    """Give each output its name, also where its value has that of a tap or is another output too.

    Args:
        graph: Its taps are named.
        names: Of its outputs, in order.
    """
    for place, (value, name) in enumerate(zip(tuple(graph.outputs), names, strict=True)):
        if value.name == name:
            continue
        kept = ir.node("Identity", [value])
        (output,) = kept.outputs
        output.name, output.shape, output.type = name, value.shape, value.type
        graph.append(kept)
        graph.outputs[place] = output


def downstream_taps(graph: ir.Graph) -> dict[ir.Node, str]:
    """Return for each node, last to first, the first tap that its result flows into.

    Where it flows into several, that is the tap of the reader that comes first in the graph.
    """
    taps: dict[ir.Node, str] = {}
    place: dict[ir.Node, int] = {node: index for index, node in enumerate(graph)}
    for node in reversed(tuple(graph)):
        own = [str(value.name) for value in node.outputs if TAP_KEY in value.metadata_props]
        readers = {use for value in node.outputs for use in value.consumers() if use in taps}
        if own:
            taps[node] = own[0]
        elif readers:
            taps[node] = taps[min(readers, key=place.__getitem__)]
        else:
            taps[node] = str(node.outputs[0].name)
    return taps


def name_layers(graph: ir.Graph) -> None:
    """Write the layer of every node into its metadata and name the node after its output."""
    for node, tap in downstream_taps(graph).items():
        node.metadata_props[LAYER_KEY] = layer_of_tap(tap)
        node.name = f"{node.outputs[0].name}/{node.op_type}"
