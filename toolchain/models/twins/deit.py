"""The full-precision twin: DeiT of the same width, depth and image size, as an ONNX model.

It is what a user would run instead: layer norms, softmax attention, GELU and an MLP ratio of 4, as
in Touvron et al., Training data-efficient image transformers, ICML 2021, whose weights are random
here because time does not depend on them. Everything is standard ONNX, so ONNX Runtime may fuse it
as it likes; the batch is fixed for the same reason.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from vitc.errors import VitcError

if TYPE_CHECKING:
    from vitc.models.architectures.deit import ModelConfig

__all__ = ["deit"]

_OPSET: Final = 21
_IR: Final = 10
_MLP_RATIO: Final = 4
_WEIGHT_STD: Final = 0.02


class _Graph:
    """Collects nodes and initializers; every method returns the name of the value it makes."""

    def __init__(self, seed: int) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._random = np.random.default_rng(seed)

    def constant(self, value: NDArray[np.generic]) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def integers(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def weight(self, *shape: int) -> str:
        values = self._random.standard_normal(shape, dtype=np.float32)
        return self.constant(values * np.float32(_WEIGHT_STD))

    def op(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> list[str]:
        names = [f"v{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, **attributes))
        return names

    def linear(self, x: str, inputs: int, outputs: int) -> str:
        (product,) = self.op("MatMul", x, self.weight(inputs, outputs))
        return self.op("Add", product, self.weight(outputs))[0]

    def norm(self, x: str, width: int) -> str:
        scale = self.constant(np.ones(width, np.float32))
        return self.op("LayerNormalization", x, scale, self.weight(width), axis=-1, epsilon=1e-6)[0]


def deit(config: ModelConfig, batch: int = 1, seed: int = 0) -> onnx.ModelProto:
    """Build the twin of a binarized network.

    Args:
        config: The binarized network; image size, patch size, width, depth, heads and classes are
            taken from it.
        batch: Images in one run.
        seed: Of the random weights.

    Returns:
        A model with input ``input`` [batch, 3, H, W] and output ``logits`` [batch, classes], fp32.

    Raises:
        VitcError: If `batch` is less than 1.
    """
    if batch < 1:
        raise VitcError(f"A batch has at least one image, found {batch}.")
    C, N, size = config.width, config.tokens, config.image_size
    graph = _Graph(seed)
    patch = [config.patch_size] * 2
    (maps,) = graph.op(
        "Conv",
        "input",
        graph.weight(C, 3, *patch),
        graph.weight(C),
        kernel_shape=patch,
        strides=patch,
    )
    (rows,) = graph.op("Reshape", maps, graph.integers(batch, C, N - 1))
    (patches,) = graph.op("Transpose", rows, perm=[0, 2, 1])
    (joined,) = graph.op("Concat", graph.weight(batch, 1, C), patches, axis=1)
    (x,) = graph.op("Add", joined, graph.weight(1, N, C))
    for _ in range(config.depth):
        attended = _attention(graph, graph.norm(x, C), config, batch)
        (x,) = graph.op("Add", x, attended)
        hidden = graph.linear(graph.norm(x, C), C, _MLP_RATIO * C)
        (active,) = graph.op("Gelu", hidden)
        (x,) = graph.op("Add", x, graph.linear(active, _MLP_RATIO * C, C))
    (token,) = graph.op("Gather", graph.norm(x, C), graph.constant(np.array(0, np.int64)), axis=1)
    (product,) = graph.op("MatMul", token, graph.weight(C, config.classes))
    graph.nodes.append(helper.make_node("Add", [product, graph.weight(config.classes)], ["logits"]))
    made = helper.make_graph(
        graph.nodes,
        "deit",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [batch, 3, size, size])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, config.classes])],
        graph.constants,
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR)


def _attention(graph: _Graph, u: str, config: ModelConfig, batch: int) -> str:
    C, N, h, d = config.width, config.tokens, config.heads, config.head_width
    (split,) = graph.op("Reshape", graph.linear(u, C, 3 * C), graph.integers(batch, N, 3, h, d))
    (turned,) = graph.op("Transpose", split, perm=[2, 0, 3, 1, 4])
    q, k, v = (
        graph.op("Gather", turned, graph.constant(np.array(part, np.int64)), axis=0)[0]
        for part in range(3)
    )
    (scaled,) = graph.op("Mul", q, graph.constant(np.array(d**-0.5, np.float32)))
    (columns,) = graph.op("Transpose", k, perm=[0, 1, 3, 2])
    (scores,) = graph.op("MatMul", scaled, columns)
    (p,) = graph.op("Softmax", scores, axis=-1)
    (context,) = graph.op("MatMul", p, v)
    (merged,) = graph.op("Transpose", context, perm=[0, 2, 1, 3])
    (flat,) = graph.op("Reshape", merged, graph.integers(batch, N, C))
    return graph.linear(flat, C, C)
