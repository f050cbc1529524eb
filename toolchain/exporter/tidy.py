"""What torch.onnx leaves behind goes: folded constants, dead nodes, shapes computed at run time."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript import optimizer

from vitc.passes.constants import add_constant, constant

__all__ = ["fold_constants", "strip_origins", "use_static_shapes"]

_NO_LIMIT = 1 << 31


def strip_origins(model: ir.Model) -> None:
    """Remove what torch.onnx notes about source files, stacks and names of scopes."""
    common.ClearMetadataAndDocStringPass()(model)
    for value in (*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.metadata_props.clear()


def fold_constants(model: ir.Model) -> None:
    """Fold what depends on constants only and remove what nothing reads."""
    optimizer.fold_constants(
        model, input_size_limit=_NO_LIMIT, output_size_limit=_NO_LIMIT, onnx_shape_inference=True
    )
    for node in tuple(model.graph):
        source = node.inputs[0] if node.inputs else None
        if node.op_type == "Slice" and source is not None and _takes_everything(node):
            node.outputs[0].replace_all_uses_with(source)
    for finish in (
        common.IdentityEliminationPass(),
        common.RemoveUnusedNodesPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
    ):
        finish(model)
    for node in model.graph:
        node.metadata_props.pop("pkg.onnxscript.rewriter.rule_name", None)


def _takes_everything(node: ir.Node) -> bool:
    starts, ends = (constant(node.inputs[i]) for i in (1, 2))
    stepped = len(node.inputs) > 4 and node.inputs[4] is not None
    steps = constant(node.inputs[4]) if stepped else np.ones(1, np.int64)
    return (
        starts is not None
        and ends is not None
        and steps is not None
        and not (starts.any() or (steps != 1).any() or (ends != np.iinfo(np.int64).max).any())
        and not node.outputs[0].is_graph_output()
    )


def use_static_shapes(model: ir.Model) -> None:
    """Give each Reshape and Expand a shape in which at most the batch is open.

    A Reshape gets a constant shape: 0 keeps a leading batch, -1 computes one open dimension. An
    Expand along the batch reads the batch straight from the graph's input.
    """
    graph = model.graph
    for node in tuple(graph):
        if node.op_type == "Reshape":
            _fix_reshape(node, graph)
        elif node.op_type == "Expand":
            _fix_expand(node, graph)
    common.RemoveUnusedNodesPass()(model)


def _open_axes(shape: ir.Shape) -> list[int]:
    return [axis for axis, size in enumerate(shape) if not isinstance(size, int)]


def _fix_reshape(node: ir.Node, graph: ir.Graph) -> None:
    source, result = node.inputs[0], node.outputs[0]
    if source is None or source.shape is None or result.shape is None:
        return
    axes = _open_axes(result.shape)
    if len(axes) > 1:
        return
    keeps_first = axes == [0] and len(source.shape) > 0 and source.shape[0] == result.shape[0]
    sizes = [size if isinstance(size, int) else (0 if keeps_first else -1) for size in result.shape]
    if 0 in (size for size in result.shape if isinstance(size, int)):
        return
    node.replace_input_with(1, add_constant(graph, np.array(sizes, dtype=np.int64), "shape"))
    node.attributes.pop("allowzero", None)


def _fix_expand(node: ir.Node, graph: ir.Graph) -> None:
    result = node.outputs[0]
    image = graph.inputs[0]
    if result.shape is None or image.shape is None or _open_axes(result.shape) != [0]:
        return
    if result.shape[0] != image.shape[0]:
        return
    rest = np.array([size for size in result.shape if isinstance(size, int)], dtype=np.int64)
    batch = ir.node("Shape", [image], {"start": 0, "end": 1})
    sizes = ir.node("Concat", [batch.outputs[0], add_constant(graph, rest, "sizes")], {"axis": 0})
    graph.insert_before(node, [batch, sizes])
    node.replace_input_with(1, sizes.outputs[0])
