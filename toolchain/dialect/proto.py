"""A model in memory as an ONNX message."""

from __future__ import annotations

import onnx
import onnx_ir as ir

__all__ = ["to_proto"]


def to_proto(model: ir.Model) -> onnx.ModelProto:
    """Return the message of a model, in which `value_info` describes what nodes make and no more.

    onnx-ir describes initializers there too. They describe themselves, and a tool that gives one
    another shape, as ONNX Runtime's quantizer does when it transposes a weight, leaves the old
    description behind and makes the model invalid.
    """
    proto: onnx.ModelProto = ir.to_proto(model)
    graph = proto.graph
    constants = {tensor.name for tensor in graph.initializer}
    made = [info for info in graph.value_info if info.name not in constants]
    del graph.value_info[:]
    graph.value_info.extend(made)
    return proto
