"""An operator that has no row of its own, translated by torch.onnx as a network of itself."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import onnx
import onnx_ir as ir
import torch
from onnx_ir.passes import common
from torch import Tensor, nn

from vitc.dialect import OPSET
from vitc.errors import VitcError
from vitc.exporter.leaves import leaves, mapped
from vitc.exporter.recording import Call, PerImage, Size, Value
from vitc.exporter.translation import BATCH

__all__ = ["translate_alone"]

_IMAGES: Final = 2
_done: dict[tuple[Any, ...], onnx.ModelProto] = {}


class _Alone(nn.Module):
    """A call as a network: tensors are its inputs, all else stays as it was."""

    def __init__(self, call: Call) -> None:
        super().__init__()
        self._operator = call.operator
        self._given = call.arguments, call.keywords

    def forward(self, *tensors: Tensor) -> Any:
        given = iter(tensors)
        arguments, keywords = mapped(
            lambda leaf: next(given) if isinstance(leaf, Value) else leaf, self._given
        )
        return self._operator(*arguments, **keywords)


def translate_alone(call: Call, inputs: Sequence[ir.Value], graph: ir.Graph) -> list[ir.Value]:
    """Add the nodes of a call to a graph.

    Args:
        call: The call.
        inputs: What stands in the graph for the tensors that it is given, in order.
        graph: The graph.

    Returns:
        What stands for its results.

    Raises:
        VitcError: If torch.onnx cannot translate the operator.
    """
    key = (
        call.operator,
        *(
            (leaf.shape, leaf.dtype) if isinstance(leaf, Value) else (type(leaf), repr(leaf))
            for leaf in leaves((call.arguments, call.keywords))
        ),
        repr(mapped(lambda _: None, (call.arguments, call.keywords))),
    )
    if key not in _done:
        _done[key] = _exported(call)
    alone = ir.from_proto(_done[key])
    for own, given in zip(alone.graph.inputs, inputs, strict=True):
        own.replace_all_uses_with(given, replace_graph_outputs=True)
    results = list(alone.graph.outputs)
    nodes = list(alone.graph)
    alone.graph.outputs.clear()
    alone.graph.remove(nodes)
    for node in nodes:
        node.name = None
        for value in node.outputs:
            value.name = None
    graph.extend(nodes)
    return results


def _exported(call: Call) -> onnx.ModelProto:
    given = leaves((call.arguments, call.keywords))
    tensors = [leaf for leaf in given if isinstance(leaf, Value)]
    example = tuple(torch.zeros(_fixed(value.shape), dtype=value.dtype) for value in tensors)
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                _Alone(call),
                example,
                dynamo=True,
                opset_version=OPSET,
                dynamic_shapes=(tuple(_open_axes(value.shape) for value in tensors),),
                optimize=False,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise VitcError(
            f"The model could not be traced: {call.operator} has no form in ONNX "
            f"({str(cause).strip().partition(chr(10))[0]}).",
            "A model for vitc is built of the layers of vitc.nn and plain torch operators.",
        ) from error
    if program is None:
        raise VitcError("torch.onnx.export returned nothing.")
    model: ir.Model = program.model
    common.InlinePass()(model)
    for value in tuple(model.graph.initializers.values()):
        node = ir.node("Constant", [], {"value": value.const_value})
        model.graph.insert_before(model.graph[0], node)
        value.replace_all_uses_with(node.outputs[0], replace_graph_outputs=True)
    model.graph.initializers.clear()
    proto: onnx.ModelProto = ir.to_proto(model)
    return proto


def _open_axes(shape: Sequence[Size]) -> dict[int, Any]:
    images = torch.export.Dim(BATCH)
    return {
        axis: images if size.count == 1 else size.count * images
        for axis, size in enumerate(shape)
        if isinstance(size, PerImage)
    }


def _fixed(shape: Sequence[Size]) -> list[int]:
    return [size if isinstance(size, int) else size.count * _IMAGES for size in shape]


@contextmanager
def _quiet() -> Iterator[None]:
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
