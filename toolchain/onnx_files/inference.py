"""Types and shapes of a file, inferred node by node: a node that contradicts them is named.

onnx's own inference goes through function bodies, where the attributes of an operator meet its
inputs in the middle of arithmetic that nobody wrote. Here the operators of the dialect have
signatures of their own (`vitc.dialect.signature`), and only standard operators are left to onnx.
What a file says of its values is believed only where nothing contradicts it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from vitc.dialect import DOMAIN
from vitc.dialect.metadata import LAYER_KEY
from vitc.dialect.signature import TensorType, call_type, check_attributes
from vitc.errors import VitcError

__all__ = ["check_types"]

_HINT = "The file is damaged or made by hand; write it with `vitc export CKPT --out M.onnx`."
_STANDARD = ("", "ai.onnx")
_LARGEST_SHAPE = 64
"""Elements of a constant whose values onnx may want, such as the shape of a Reshape."""
_PYTHON = {onnx.AttributeProto.INT: int, onnx.AttributeProto.FLOAT: float}

Types = dict[str, onnx.TypeProto]


def check_types(file: Path, proto: onnx.ModelProto) -> None:
    """Check every node of the graph against the types and shapes of what it reads.

    Args:
        file: What to call the file in errors.
        proto: A model that `onnx.checker` accepts.

    Raises:
        VitcError: A node's attributes or inputs do not fit it, or its result is not what the file
            says; the message names the node and its layer.
    """
    graph = proto.graph
    declared = {info.name: info.type for info in (*graph.value_info, *graph.output)}
    types: Types = {info.name: info.type for info in graph.input}
    data = {t.name: t for t in graph.initializer if math.prod(t.dims) <= _LARGEST_SHAPE}
    for tensor in graph.initializer:
        types[tensor.name] = onnx.helper.make_tensor_type_proto(tensor.data_type, tensor.dims)
    versions = {entry.domain: entry.version for entry in proto.opset_import}
    bits: dict[str, int] = {}
    for node in graph.node:
        try:
            made = _results(node, types, data, versions, bits)
            for name in node.output:
                types[name] = _agreed(name, made.get(name), declared.get(name))
        except VitcError as error:
            what = f"{error.message} ({_place(node)})"
            raise VitcError(f"{file} is not valid: {what}.", _HINT) from error
        except onnx.shape_inference.InferenceError as error:
            first = str(error).strip().partition("\n")[0]
            what = f"{_reason(first)} ({_place(node)})"
            raise VitcError(f"{file} is not valid: {what}.", _HINT) from error


def _reason(sentence: str) -> str:
    """What onnx says, without the node, which it does not always name."""
    return sentence.rpartition("): ")[2].rpartition("Error] ")[2].rstrip(".")


def _place(node: onnx.NodeProto) -> str:
    layers = [entry.value for entry in node.metadata_props if entry.key == LAYER_KEY]
    name = node.name or (node.output[0] if node.output else "")
    return f"the {node.op_type} {name}" + (f" of the layer {layers[0]}" if layers else "")


def _results(
    node: onnx.NodeProto,
    types: Types,
    data: Mapping[str, onnx.TensorProto],
    versions: Mapping[str, int],
    bits: dict[str, int],
) -> Types:
    """Types of what a node makes, as far as they can be told; `bits` gets what it packs."""
    for inner in _nested(node):
        if inner.domain == DOMAIN:
            check_attributes(inner.op_type, _attributes(inner))
    if node.domain == DOMAIN:
        attributes = _attributes(node)
        check_attributes(node.op_type, attributes)
        if len(node.output) != 1:
            raise VitcError(f"it has {len(node.output)} outputs, not 1")
        given = [
            replace(_tensor_type(types.get(name)), bits=bits.get(name)) if name else None
            for name in node.input
        ]
        made = call_type(node.op_type, attributes, given)
        if made.bits is not None:
            bits[node.output[0]] = made.bits
        return {node.output[0]: _message(made)}
    known = all(types[name].WhichOneof("value") for name in node.input if name)
    if not known or any(_nested(node)):
        return {}
    domain = "" if node.domain in _STANDARD else node.domain
    schema = onnx.defs.get_schema(node.op_type, versions.get(node.domain, 1), domain)
    return onnx.shape_inference.infer_node_outputs(
        schema,
        node,
        {name: types[name] for name in node.input if name},
        {name: data[name] for name in node.input if name in data},
        opset_imports=[onnx.helper.make_opsetid(*entry) for entry in versions.items()],
    )


def _nested(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    for attribute in node.attribute:
        for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            for inner in graph.node:
                yield inner
                yield from _nested(inner)


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {
        attribute.name: onnx.helper.get_attribute_value(attribute)
        if attribute.type in _PYTHON
        else None
        for attribute in node.attribute
    }


def _tensor_type(kind: onnx.TypeProto | None) -> TensorType:
    if kind is None or not kind.HasField("tensor_type"):
        return TensorType()
    tensor = kind.tensor_type
    dtype = ""
    if tensor.elem_type:
        dtype = str(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    if not tensor.HasField("shape"):
        return TensorType(dtype)
    return TensorType(dtype, tuple(_size(size) for size in tensor.shape.dim))


def _size(size: onnx.TensorShapeProto.Dimension) -> int | str | None:
    return size.dim_value if size.HasField("dim_value") else size.dim_param or None


def _message(kind: TensorType) -> onnx.TypeProto:
    code = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(kind.dtype))
    return onnx.helper.make_tensor_type_proto(code, kind.shape)


def _agreed(
    name: str, inferred: onnx.TypeProto | None, declared: onnx.TypeProto | None
) -> onnx.TypeProto:
    """What is known of a value by inference and by what the file says."""
    own, said = _tensor_type(inferred), _tensor_type(declared)
    if own.dtype and said.dtype and own.dtype != said.dtype:
        raise VitcError(f"{name} is {own.dtype}, where the file says {said.dtype}")
    if own.shape is None and declared is not None:
        return declared
    if own.shape is None or said.shape is None:
        return inferred or onnx.TypeProto()
    pairs = list(zip(own.shape, said.shape, strict=False))
    clash = any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in pairs)
    if len(own.shape) != len(said.shape) or clash:
        raise VitcError(f"{name} is {list(own.shape)}, where the file says {list(said.shape)}")
    sizes = tuple(a if isinstance(a, int) else b if b is not None else a for a, b in pairs)
    return _message(TensorType(own.dtype or said.dtype, sizes))
