"""The ports of an exported file: what it takes and gives, of each image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import onnx_ir as ir

from vitc.dialect.ops import DOMAIN
from vitc.errors import VitcError
from vitc.runtime.port import EXTENT, Port

__all__ = ["input_ports", "output_ports", "packed_widths", "run_ports"]

_DTYPES: Final = {
    ir.DataType.FLOAT: "float32",
    ir.DataType.INT32: "int32",
    ir.DataType.INT64: "int32",
    ir.DataType.UINT8: "uint8",
    ir.DataType.BOOL: "uint8",
}

_VIEWS: Final = frozenset(
    ("Flatten", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze")
)
"""After which integers are the same ones."""


def input_ports(model: ir.Model) -> tuple[Port, ...]:
    """The inputs of a file, in its order.

    An input that picks rows of a constant has their number as its limit.

    Raises:
        VitcError: If an input is of another type, or its size depends on more than the images.
    """
    own = run_ports(model)
    return tuple(own.get(str(value.name)) or _port(value) for value in model.graph.inputs)


def output_ports(model: ir.Model) -> tuple[Port, ...]:
    """The outputs of a file, in its order.

    Raises:
        VitcError: If an output is of another type, or its size depends on more than the images.
    """
    own = run_ports(model)
    return tuple(own.get(str(value.name)) or _port(value) for value in model.graph.outputs)


def run_ports(model: ir.Model) -> dict[str, Port]:
    """Inputs and outputs that belong to the whole run, by their names.

    Those are the ones with an axis called `EXTENT`, which comes first, and, where an input has it,
    those without an open axis.

    Raises:
        VitcError: If one is of another type, or another of its axes is open.
    """
    graph = model.graph
    if not any(_open(value)[:1] == [EXTENT] for value in graph.inputs):
        return {}
    found = {}
    for value in (*graph.inputs, *graph.outputs):
        if EXTENT in _open(value) or not _open(value):
            found[str(value.name)] = _run_port(value)
    return found


def packed_widths(model: ir.Model) -> dict[str, int]:
    """How many bits the last axis of each input holds that a scan reads packed."""
    return {
        str(value.name): node.attributes["k"].as_int()
        for node in model.graph
        if (node.domain, node.op_type) == (DOMAIN, "MaxSimHamming")
        for value in node.inputs
        if value is not None and value.is_graph_input()
    }


def _open(value: ir.Value) -> list[str]:
    """Names of the axes that are not of fixed size."""
    return (
        []
        if value.shape is None
        else [str(size.value) for size in value.shape if not isinstance(size, int)]
    )


def _run_port(value: ir.Value) -> Port:
    dtype = None if value.dtype is None else _DTYPES.get(value.dtype)
    sizes = [] if value.shape is None else list(value.shape)
    shape = tuple(size if isinstance(size, int) else None for size in sizes)
    if dtype is None or not shape or None in shape[1:]:
        raise VitcError(
            f"The port {value.name} is {value.dtype} {sizes}, wanted floats, integers or bits, "
            f"the axis {EXTENT} first and all other sizes fixed.",
            "Give it such an axis.",
        )
    return Port(str(value.name), dtype, shape, per_image=False)


def _port(value: ir.Value) -> Port:
    dtype = None if value.dtype is None else _DTYPES.get(value.dtype)
    sizes = [] if value.shape is None else list(value.shape)
    fixed = tuple(size for size in sizes[1:] if isinstance(size, int))
    if dtype is None or not sizes or len(fixed) != len(sizes) - 1:
        raise VitcError(
            f"The port {value.name} is {value.dtype} {sizes}, wanted floats, integers or bits, "
            "the image first and all other sizes fixed.",
            "Export it with an example whose first axis alone counts images.",
        )
    limits = list(_limits(value)) if dtype == "int32" else []
    return Port(str(value.name), dtype, fixed, limit=min(limits, default=None))


def _limits(value: ir.Value) -> Iterator[int]:
    for use in value.uses():
        table = use.node.inputs[0]
        if use.node.op_type in _VIEWS and use.idx == 0:
            yield from _limits(use.node.outputs[0])
        if use.node.op_type != "Gather" or use.idx != 1 or table is None or table.shape is None:
            continue
        axis = use.node.attributes.get("axis")
        size = table.shape[0 if axis is None else axis.as_int()]
        if isinstance(size, int):
            yield size
