"""The ports of an exported file: what it takes and gives, of each image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import onnx_ir as ir

from vitc.errors import VitcError
from vitc.runtime.port import Port

__all__ = ["input_ports", "output_ports"]

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
    return tuple(_port(value) for value in model.graph.inputs)


def output_ports(model: ir.Model) -> tuple[Port, ...]:
    """The outputs of a file, in its order.

    Raises:
        VitcError: If an output is of another type, or its size depends on more than the images.
    """
    return tuple(_port(value) for value in model.graph.outputs)


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
