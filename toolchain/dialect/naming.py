"""Names and orders that follow from the operators of a graph, not from who made it."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

__all__ = ["Names", "name_body", "name_nested", "sort_attributes"]


class Names:
    """Hands out each name once: `x`, `x_2`, `x_3`.

    Args:
        taken: Names that are in use.
    """

    def __init__(self, taken: Iterable[str]) -> None:
        self._taken = set(taken)

    def unique(self, wanted: str) -> str:
        """Return a name that was not handed out before."""
        name, number = wanted, 2
        while name in self._taken:
            name, number = f"{wanted}_{number}", number + 1
        self._taken.add(name)
        return name


def sort_attributes(node: ir.Node) -> None:
    """Order the attributes of a node by name."""
    attributes = sorted(node.attributes.items())
    node.attributes.clear()
    node.attributes.update(attributes)


def name_body(function: ir.Function) -> None:
    """Name nodes and inner values of a function after their operators.

    Args:
        function: Changed in place; its inputs and outputs keep their names.
    """
    kept = {*function.inputs, *function.outputs}
    names = Names(str(value.name) for value in kept)
    for node in function:
        node.name = names.unique(node.op_type)
        for index, value in enumerate(node.outputs):
            if value not in kept:
                value.name = f"{node.name}.{index}" if index else node.name
        name_nested(node, names)
        sort_attributes(node)


def name_nested(node: ir.Node, names: Names) -> None:
    """Name what is in the graphs that a node holds as attributes, such as branches, after the node.

    Args:
        node: Changed in place.
        names: Of the graph around it, whose names a branch must not hide.
    """
    for name, attribute in sorted(node.attributes.items()):
        graphs = {
            ir.AttributeType.GRAPH: lambda a: [a.as_graph()],
            ir.AttributeType.GRAPHS: lambda a: list(a.as_graphs()),
        }.get(attribute.type, lambda _: [])(attribute)
        for graph in graphs:
            graph.name = names.unique(f"{node.name}/{name}")
            graph.doc_string = None
            for index, value in enumerate(graph.inputs):
                value.name = names.unique(f"{graph.name}/input_{index}")
            for index, value in enumerate(tuple(graph.initializers.values())):
                value.name = names.unique(f"{graph.name}/constant_{index}")
            for inner in graph:
                inner.name = names.unique(f"{graph.name}/{inner.op_type}")
                for index, value in enumerate(inner.outputs):
                    value.name = f"{inner.name}.{index}" if index else inner.name
                name_nested(inner, names)
                sort_attributes(inner)
