"""Small graphs by hand, for the phases of the compiler."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper, numpy_helper

from vitc.compiler.graph import Graph, Op, Use, Value
from vitc.dialect.ops import DOMAIN
from vitc.dialect.packing import pack_bits

__all__ = ["Typed", "onnx_graph"]

_LAYER = "vitc.layer"


def onnx_graph(
    shape: Sequence[int | str],
    nodes: Sequence[tuple[str, Sequence[str], str, dict[str, Any]]],
    constants: dict[str, np.ndarray],
) -> ir.Model:
    """An ONNX graph whose last node makes its output.

    Args:
        shape: Of the input `x`.
        nodes: Type (of the dialect if it begins with `vitc.`), inputs, output, attributes.
        constants: Initializers.
    """
    made = []
    for kind, inputs, output, attributes in nodes:
        domain = DOMAIN if kind.startswith("vitc.") else ""
        name = kind.removeprefix("vitc.")
        node = helper.make_node(name, inputs, [output], domain=domain, **attributes)
        node.metadata_props.add(key=_LAYER, value=f"layer of {output}")
        made.append(node)
    fp32 = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        made,
        "g",
        [helper.make_tensor_value_info("x", fp32, shape)],
        [helper.make_tensor_value_info(nodes[-1][2], fp32, None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return ir.from_proto(helper.make_model(graph))


class Typed:
    """Builds a typed graph; every method appends an operator and returns a use of its value."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.ops: list[Op] = []
        self.inputs: list[Value] = []

    def graph(self, *outputs: Use) -> Graph:
        """The finished graph."""
        return Graph(self.inputs, {use.value.name: use for use in outputs}, self.ops)

    def op(self, kind: str, inputs: Sequence[Any], output: Value, **attributes: Any) -> Use:
        """Append any operator."""
        domain = "" if kind in {"FloatLinear", "View"} else DOMAIN
        self.ops.append(Op(kind, domain, tuple(inputs), output, attributes, f"layer {output.name}"))
        return Use(output)

    def embedding(self, name: str, side: int, patch: int, width: int) -> Use:
        """Patches of a new input, without a class token."""
        image = Value(f"{name}.image", "float", (3, side, side))
        self.inputs.append(image)
        rows = (side // patch) ** 2
        weight = self.rng.standard_normal((width, patch, patch, 3)).astype(np.float32)
        start = self.rng.standard_normal((rows, width)).astype(np.float32)
        output = Value(name, "float", (rows, width))
        turned = np.arange(3 * side * side).reshape(3, side, side).transpose(1, 2, 0)
        use = Use(image, (("transpose", (1, 2, 0)),), turned)
        window = {"strides": (patch, patch), "places": (side // patch,) * 2, "relu": False}
        return self.op("FloatLinear", [use, weight, start], output, **window)

    def binarize(self, name: str, use: Use) -> Use:
        """Bits of floats, with a threshold a row of what is read."""
        shape = (*use.shape[:-1], 1)
        threshold = self.rng.standard_normal(shape).astype(np.float32)
        flip = self.rng.random(shape) < 0.5
        return self.op("Binarize", [use, threshold, flip], Value(name, "bits", use.shape))

    def threshold(self, name: str, use: Use, outputs: int) -> Use:
        """A binary linear layer that ends in bits."""
        k, rows = use.shape[-1], use.shape[-2]
        inputs = [use, self.weight(outputs, k), *self.vectors(outputs, 2), *self.vectors(rows, 1)]
        inputs[-1] = inputs[-1].reshape(rows, 1)
        inputs.append(np.full((1, 1), -np.inf, np.float32))
        value = Value(name, "bits", (*use.shape[:-1], outputs))
        return self.op("BinaryLinearThreshold", inputs, value, k=k)

    def residual(self, name: str, use: Use, to: Use, *, transposed: bool = False) -> Use:
        """A binary linear layer that is added to floats."""
        k, outputs = use.shape[-1], to.shape[-2 if transposed else -1]
        gain = np.ones((1, 1), np.float32)
        inputs = [use, self.weight(outputs, k), *self.vectors(outputs, 2), gain, to]
        value = Value(name, "float", to.shape)
        return self.op("BinaryLinearResidual", inputs, value, k=k, transposed=int(transposed))

    def weight(self, outputs: int, k: int) -> np.ndarray:
        """A packed binary weight."""
        return pack_bits(self.rng.integers(0, 2, (outputs, k), dtype=np.uint8))

    def vectors(self, size: int, count: int) -> list[np.ndarray]:
        """Constants of fp32."""
        return [self.rng.standard_normal(size).astype(np.float32) for _ in range(count)]
