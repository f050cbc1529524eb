"""The two fp32 ends of the network: matches the embedding and folds the classifier.

The embedding is a convolution whose stride is its kernel, followed by constants only. What the
constants come to is found by running that part of the graph on an image of zeros; the rest is
linear in the image. The classifier is one token, its batch norm and an affine map; the norm folds
into the map (spec, section 3), in float64.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from vitc.errors import VitcError
from vitc.exporter import run_with_taps, session

__all__ = ["Embedding", "Head", "fold_head", "match_embedding"]

_HINT = "Only SI-BiViT graphs exported by `vitc export --format packed` can be compiled."
_MOST_ELEMENTS = 1 << 26
_LAYOUT_OPS = frozenset({"Add", "Concat", "Expand", "Flatten", "Identity", "Reshape", "Transpose"})


@dataclass(frozen=True)
class Embedding:
    """The patch embedding.

    Attributes:
        value: Its result, the first value of the residual stream.
        tap: Name of that value.
        weight: Convolution, fp32 [C, colours, patch, patch].
        start: The stream of an image of zeros, fp32 [tokens, C].
        image: Height and width of the input.
        patch: Side of a patch.
        patches: Number of patches; they are the last tokens.
    """

    value: ir.Value
    tap: str
    weight: npt.NDArray[np.float32]
    start: npt.NDArray[np.float32]
    image: tuple[int, int]
    patch: int
    patches: int


@dataclass(frozen=True)
class Head:
    """The classifier: `weight @ stream[token] + bias`.

    Attributes:
        stream: Last value of the residual stream.
        token: Token that is classified.
        weight: float64 [classes, C].
        bias: float64 [classes].
    """

    stream: ir.Value
    token: int
    weight: npt.NDArray[np.float64]
    bias: npt.NDArray[np.float64]


def _constant(value: ir.Value | None, what: str) -> npt.NDArray[Any]:
    if value is None or value.const_value is None:
        raise VitcError(f"{what} is not a constant in the ONNX file.", _HINT)
    return np.asarray(value.const_value.numpy())


def _forward(value: ir.Value) -> Iterator[tuple[ir.Node, ir.Value]]:
    """Follow a value through its only user, as long as that lays out or adds constants."""
    while True:
        uses = list(value.uses())
        if len(uses) != 1 or uses[0].node.op_type not in _LAYOUT_OPS or uses[0].node.domain:
            return
        value = uses[0].node.outputs[0]
        yield uses[0].node, value


def match_embedding(model: ir.Model) -> Embedding:
    """Find the embedding.

    Raises:
        VitcError: If the graph does not begin with a patch embedding.
    """
    graph = model.graph
    convolutions = [n for n in graph if n.op_type == "Conv" and n.domain == ""]
    if len(graph.inputs) != 1 or len(convolutions) != 1:
        raise VitcError(
            f"The graph has {len(convolutions)} convolutions and {len(graph.inputs)} inputs, "
            "wanted one of each.",
            _HINT,
        )
    node = convolutions[0]
    weight = _constant(node.inputs[1], "The patch embedding's weight")
    patch = int(weight.shape[2])
    attributes = node.attributes
    strides = list(attributes["strides"].as_ints()) if "strides" in attributes else [1, 1]
    pads = list(attributes["pads"].as_ints()) if "pads" in attributes else [0, 0, 0, 0]
    groups = attributes["group"].as_int() if "group" in attributes else 1
    if node.inputs[0] is not graph.inputs[0] or weight.shape[3] != patch:
        raise VitcError("The convolution does not read square patches of the input.", _HINT)
    if strides != [patch, patch] or any(pads) or groups != 1:
        raise VitcError("The convolution's patches overlap or are padded.", _HINT)
    shape = graph.inputs[0].shape
    if shape is None or not all(isinstance(d, int) for d in list(shape)[1:]):
        raise VitcError("The input has no fixed image size.", _HINT)
    height, width = int(shape[2]), int(shape[3])  # type: ignore[arg-type]
    value = node.outputs[0]
    for _, value in _forward(node.outputs[0]):  # noqa: B007 - the last one is wanted
        pass
    start = _run_on_zeros(model, value)
    patches = (height // patch) * (width // patch)
    if start.ndim != 2 or start.shape[1] != len(weight) or start.shape[0] < patches:
        raise VitcError(f"The embedding gives {start.shape}, wanted tokens x {len(weight)}.", _HINT)
    return Embedding(
        value, str(value.name), weight.astype(np.float32), start, (height, width), patch, patches
    )


def _run_on_zeros(model: ir.Model, value: ir.Value) -> npt.NDArray[np.float32]:
    """Value of the stream for one image of zeros, computed by ONNX Runtime."""
    proto = ir.to_proto(model)
    _keep_what_makes(proto.graph, str(value.name))
    _check_shapes(proto)
    opened = session(ir.from_proto(proto), [str(value.name)], confined=True)
    image = np.zeros((1, *(int(str(d)) for d in opened.get_inputs()[0].shape[1:])), np.float32)
    result: npt.NDArray[np.float32] = run_with_taps(opened, image)[str(value.name)][0]
    return result


def _check_shapes(proto: onnx.ModelProto) -> None:
    """Refuse shapes that a few bytes of the file could make larger than memory."""
    sized = onnx.ModelProto()
    sized.CopyFrom(proto)
    sized.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    del sized.graph.output[:]
    inferred = onnx.shape_inference.infer_shapes(sized, strict_mode=True, data_prop=True)
    shapes = {
        info.name: [d.dim_value if d.HasField("dim_value") else 0 for d in dims]
        for info in inferred.graph.value_info
        if (dims := info.type.tensor_type.shape.dim) or info.type.tensor_type.HasField("shape")
    }
    for name in (name for node in proto.graph.node for name in node.output):
        shape = shapes.get(name, [0])
        if not all(size > 0 for size in shape) or math.prod(shape) > _MOST_ELEMENTS:
            raise VitcError(f"The embedding's {name} has no sensible shape {shape}.", _HINT)


def _keep_what_makes(graph: onnx.GraphProto, name: str) -> None:
    wanted, kept = {name}, list[onnx.NodeProto]()
    for node in reversed(graph.node):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            kept.insert(0, node)
    del graph.node[:], graph.output[:]
    graph.node.extend(kept)
    graph.output.add(name=name).type.tensor_type.elem_type = onnx.TensorProto.FLOAT


def fold_head(graph: ir.Graph) -> Head:
    """Find the classifier and fold its batch norm.

    Raises:
        VitcError: If the graph does not end with batch norm, one token and an affine map.
    """
    if len(graph.outputs) != 1:
        raise VitcError(f"The graph has {len(graph.outputs)} outputs, wanted one.", _HINT)
    value: ir.Value = graph.outputs[0]
    weight: npt.NDArray[np.float64] | None = None
    bias: npt.NDArray[np.float64] | float = 0.0
    token: int | None = None
    norm: ir.Node | None = None
    while (node := value.producer()) is not None and node.domain == "":
        operation = node.op_type
        if operation == "Gemm" and weight is None:
            transposed = "transB" in node.attributes and node.attributes["transB"].as_int()
            matrix = _constant(node.inputs[1], "The classifier's weight").astype(np.float64)
            weight = matrix if transposed else matrix.T
            if len(node.inputs) > 2 and node.inputs[2] is not None:
                bias = _constant(node.inputs[2], "The classifier's bias").astype(np.float64)
        elif operation == "Add" and weight is None:
            bias = _constant(node.inputs[1], "The classifier's bias").astype(np.float64)
        elif operation == "MatMul" and weight is None:
            weight = _constant(node.inputs[1], "The classifier's weight").astype(np.float64).T
        elif operation in {"Slice", "Gather"} and token is None:
            token = _token(node)
        elif operation == "BatchNormalization" and norm is None:
            norm = node
        elif operation not in {"Squeeze", "Reshape", "Flatten", "Identity"}:
            break
        following = node.inputs[0]
        if following is None:
            break
        value = following
        if norm is not None and token is not None:
            break
    if weight is None or token is None or norm is None:
        raise VitcError(
            "The graph does not end with a batch norm, one token and a classifier.", _HINT
        )
    gain, shift, mean, variance = (
        float(_constant(v, "The last batch norm").reshape(-1)[token]) for v in norm.inputs[1:5]
    )
    epsilon = norm.attributes["epsilon"].as_float() if "epsilon" in norm.attributes else 1e-5
    factor = gain / float(np.sqrt(variance + epsilon))
    offset = shift - mean * factor
    # Exact sums: the order in which numpy adds depends on the processor.
    folded_bias = bias + offset * np.array([math.fsum(row) for row in weight])
    return Head(value, token, weight * factor, np.asarray(folded_bias, np.float64))


def _token(node: ir.Node) -> int:
    """Index of the token that a Slice or Gather takes on axis 1."""
    if node.op_type == "Gather":
        axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 0
        index = _constant(node.inputs[1], "The token's index").reshape(-1)
        if axis == 1 and len(index) == 1 and index[0] >= 0:
            return int(index[0])
    else:
        starts, ends, axes = (
            _constant(v, "The token's slice").reshape(-1) for v in node.inputs[1:4]
        )
        if len(starts) == 1 and axes[0] == 1 and starts[0] >= 0 and ends[0] == starts[0] + 1:
            return int(starts[0])
    raise VitcError("The classifier does not read one token.", _HINT)
