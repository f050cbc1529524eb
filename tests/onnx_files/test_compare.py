from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnxscript import optimizer

from vitc.dialect.proto import to_proto
from vitc.exporter import build
from vitc.onnx_files import compare_graphs, differing_constants, load_onnx, run_with_taps, tap_names

FORMS = ("packed", "int8", "float")


@pytest.fixture(scope="module")
def references(source) -> dict[str, ir.Model]:
    return {form: build(source, form=form)[0] for form in ("packed", "int8", "float")}


@pytest.fixture
def proto(exported) -> onnx.ModelProto:
    return onnx.load(exported["packed"].path)


def _differences(proto, references, form="packed"):
    return differing_constants(ir.from_proto(proto), references[form])


def _change(proto, name: str, change) -> None:
    tensor = next(t for t in proto.graph.initializer if t.name == name)
    array = onnx.numpy_helper.to_array(tensor).copy()
    tensor.CopyFrom(onnx.numpy_helper.from_array(change(array), name))


@pytest.mark.parametrize("form", ["packed", "int8", "float"])
def test_a_file_equals_a_fresh_export_of_its_model(exported, references, form) -> None:
    model, _ = load_onnx(exported[form].path)
    assert differing_constants(model, references[form]) == ()


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("blocks.1.mlp.output.weight", "blocks.1.mlp"),
        ("blocks.0.attn.query.upper", "blocks.0.attn"),
        ("blocks.0.si.input.threshold", "blocks.0.si"),
        ("blocks.1.attn.context.threshold", "blocks.1.attn"),
        ("patch_embed.proj.bias", "embedding"),
        ("head.weight", "logits"),
    ],
)
def test_one_changed_bit_is_found_and_its_layer_named(proto, references, name, layer) -> None:
    def flip(array: np.ndarray) -> np.ndarray:
        array.view(np.uint8).flat[-1] ^= 1
        return array

    _change(proto, name, flip)
    (difference,) = _differences(proto, references)
    assert (difference.layer, difference.name) == (layer, name)
    assert difference.what.startswith("1 of ")


def test_differences_come_in_the_order_of_computation(proto, references) -> None:
    for name in ("norm.bias", "blocks.1.attn.key.scale", "blocks.0.mlp.hidden.offset"):
        _change(proto, name, lambda array: array + 1)
    layers = [difference.layer for difference in _differences(proto, references)]
    assert layers == ["blocks.0.mlp", "blocks.1.attn", "logits"]


def test_a_changed_slack_is_found(proto, references) -> None:
    node = next(n for n in proto.graph.node if n.output[0] == "blocks.1.attn.mask")
    node.attribute[0].i += 1
    (difference,) = _differences(proto, references)
    assert difference.layer == "blocks.1.attn"
    assert difference.name.endswith(".slack")


def test_a_changed_shape_or_type_is_found(proto, references) -> None:
    _change(proto, "blocks.0.attn.output.gain", lambda array: np.ones((5, 1), array.dtype))
    _change(proto, "blocks.0.attn.output.bias", lambda array: array.astype(np.float64))
    found = {d.name: d.what for d in _differences(proto, references)}
    assert found == {
        "blocks.0.attn.output.gain": "it is float32 [5, 1], not float32 [1, 1]",
        "blocks.0.attn.output.bias": "it is float64 [24], not float32 [24]",
    }


def test_a_rewired_a_missing_and_an_added_node_are_found(proto, references) -> None:
    nodes = {node.output[0]: node for node in proto.graph.node}
    nodes["blocks.0.mlp.output"].input[5] = "embedding"
    (difference,) = _differences(proto, references)
    assert (difference.layer, difference.name) == (
        "blocks.0.mlp",
        "blocks.0.mlp.output/BinaryLinearResidual",
    )
    nodes["blocks.0.mlp.output"].input[5] = "blocks.0.attn.output"
    extra = onnx.helper.make_node("Neg", ["embedding"], ["spare"], "spare")
    proto.graph.node.append(extra)
    assert [d.name for d in _differences(proto, references)] == ["spare"]
    del proto.graph.node[-1]
    proto.graph.node.remove(nodes["blocks.1.attn.mask"])
    assert any(d.layer == "blocks.1.attn" for d in _differences(proto, references))


def test_a_changed_body_is_found(proto, references) -> None:
    body = next(f for f in proto.functions if f.name == "RowBestMask")
    next(n for n in body.node if n.op_type == "GreaterOrEqual").op_type = "Greater"
    (difference,) = _differences(proto, references)
    assert difference.name == "dev.vitc.RowBestMask"


def test_nan_and_flipped_flags_are_not_overlooked(proto, references) -> None:
    (lower,) = (i for i in proto.graph.initializer if i.name == "blocks.0.attn.key.lower")
    assert onnx.numpy_helper.to_array(lower) == -np.inf
    _change(proto, "blocks.0.attn.key.lower", lambda array: array * np.float32(np.nan))
    _change(proto, "blocks.0.attn.input.flip", np.logical_not)
    assert len(_differences(proto, references)) == 2


def test_another_scheme_is_all_differences(proto, references) -> None:
    assert len(_differences(proto, references, "int8")) > 10


def _renamed(proto: onnx.ModelProto, names: Callable[[str], str]) -> None:
    graph = proto.graph
    known = {"", "input", "logits"}
    for node in graph.node:
        node.name = f"somewhere/{node.name}"
        for fields in (node.input, node.output):
            fields[:] = [name if name in known else names(name) for name in fields]
    for part in (*graph.value_info, *graph.initializer):
        part.name = names(part.name)


def _is_tap(proto: onnx.ModelProto) -> Callable[[str], bool]:
    taps = {info.name for info in proto.graph.value_info if info.metadata_props}
    return lambda name: name in taps


def _other_inner_names(proto: onnx.ModelProto) -> None:
    tap = _is_tap(proto)
    _renamed(proto, lambda name: name if tap(name) else f"x{sum(name.encode())}_{name[::-1]}")


def _other_names(proto: onnx.ModelProto) -> None:
    """Also of taps, whose properties go."""
    _renamed(proto, lambda name: f"x_{name}")
    for info in proto.graph.value_info:
        del info.metadata_props[:]


def _no_value_info(proto: onnx.ModelProto) -> None:
    del proto.graph.value_info[:]
    for node in proto.graph.node:
        del node.metadata_props[:]


def _another_order(proto: onnx.ModelProto) -> None:
    """Each node as early as its inputs are there, the last ones of the file first."""
    graph = proto.graph
    there = {"", "input", *(tensor.name for tensor in graph.initializer)}
    left, ordered = list(graph.node)[::-1], []
    while left:
        node = next(node for node in left if there.issuperset(node.input))
        left.remove(node)
        ordered.append(node)
        there.update(node.output)
    assert [node.name for node in ordered] != [node.name for node in graph.node]
    del graph.node[:]
    graph.node.extend(ordered)


def _constants_in_nodes(proto: onnx.ModelProto) -> None:
    graph = proto.graph
    nodes = [
        onnx.helper.make_node("Constant", [], [tensor.name], value=tensor)
        for tensor in graph.initializer
    ]
    nodes += graph.node
    del graph.initializer[:], graph.node[:]
    graph.node.extend(nodes)


def _own_copies(proto: onnx.ModelProto) -> None:
    """Nothing is shared: each reader has its own constants, and its own bits packed."""
    graph = proto.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    packs = {node.output[0]: node for node in graph.node if node.op_type == "PackBits"}
    nodes = []
    for place, node in enumerate(graph.node):
        for index, name in enumerate(node.input):
            if name in tensors:
                node.input[index] = f"{name}/{place}"
                copy = graph.initializer.add()
                copy.CopyFrom(tensors[name])
                copy.name = node.input[index]
            elif name in packs:
                node.input[index] = f"{name}/{place}"
                nodes.append(onnx.NodeProto())
                nodes[-1].CopyFrom(packs[name])
                nodes[-1].output[0] = node.input[index]
        if node.op_type != "PackBits":
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


def _identities(proto: onnx.ModelProto) -> None:
    graph = proto.graph
    nodes = []
    for place, node in enumerate(graph.node):
        for index, name in enumerate(node.input):
            nodes.append(onnx.helper.make_node("Identity", [name], [f"same_{place}_{index}"]))
            node.input[index] = f"same_{place}_{index}"
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


def _defaults_left_out(proto: onnx.ModelProto) -> None:
    for node in proto.graph.node:
        left_out = {"Gemm": ("alpha", "beta", "transA"), "Conv": ("group", "auto_pad")}
        kept = [a for a in node.attribute if a.name not in left_out.get(node.op_type, ())]
        del node.attribute[:]
        node.attribute.extend(kept)


def _other_bodies(proto: onnx.ModelProto) -> None:
    """As another onnxscript would name what is in them."""
    for body in proto.functions:
        inner = {name for node in body.node for name in node.output} - set(body.output)
        for node in body.node:
            node.name = ""
            for fields in (node.input, node.output):
                fields[:] = [f"tmp_{name}" if name in inner else name for name in fields]
            for attribute in node.attribute:
                for nested in attribute.g.node:
                    nested.input[:] = [f"tmp_{n}" if n in inner else n for n in nested.input]
    order = list(proto.functions)[::-1]
    del proto.functions[:]
    proto.functions.extend(order)


REWRITES = (
    _other_inner_names,
    _other_names,
    _no_value_info,
    _another_order,
    _constants_in_nodes,
    _own_copies,
    _identities,
    _defaults_left_out,
    _other_bodies,
)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rewrite", REWRITES, ids=lambda rewrite: rewrite.__name__[1:])
def test_a_file_that_computes_the_same_is_equal_however_it_is_written_down(
    exported, references, tmp_path, rewrite, form
) -> None:
    proto = onnx.load(exported[form].path)
    rewrite(proto)
    onnx.save(proto, tmp_path / "m.onnx")
    model, _ = load_onnx(tmp_path / "m.onnx")
    assert differing_constants(model, references[form]) == ()


@pytest.mark.parametrize("rewrite", REWRITES, ids=lambda rewrite: rewrite.__name__[1:])
def test_a_fault_is_found_however_the_file_is_written_down(exported, references, rewrite) -> None:
    proto = onnx.load(exported["packed"].path)

    def flip(array: np.ndarray) -> np.ndarray:
        array.flat[0] ^= 1
        return array

    _change(proto, "blocks.1.mlp.output.weight", flip)
    next(n for n in proto.graph.node if n.output[0] == "blocks.0.attn.mask").attribute[0].i += 1
    rewrite(proto)
    found = _differences(proto, references)
    assert [(each.layer, each.name) for each in found] == [
        ("blocks.0.attn", "blocks.0.attn.mask/RowBestMask.slack"),
        ("blocks.1.mlp", "blocks.1.mlp.output.weight"),
    ]


@pytest.mark.parametrize("form", FORMS)
def test_a_file_with_inferred_shapes_or_folded_constants_is_equal(
    exported, references, form
) -> None:
    proto = onnx.shape_inference.infer_shapes(onnx.load(exported[form].path), strict_mode=True)
    assert _differences(proto, references, form) == ()
    model = ir.from_proto(proto)
    before = len(model.graph)
    optimizer.fold_constants(model, input_size_limit=1 << 30, output_size_limit=1 << 30)
    ir.passes.common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    assert (len(model.graph) < before) == (form != "packed")
    assert differing_constants(model, references[form]) == ()


def test_taps_whose_names_a_tool_dropped_are_known_again(exported, references, images) -> None:
    proto = onnx.load(exported["packed"].path)
    values = run_with_taps(exported["packed"].path, images.numpy(), tap_names(ir.from_proto(proto)))
    _other_names(proto)
    model = ir.from_proto(proto)
    assert tap_names(model) == ["logits"]
    compare_graphs(model, references["packed"]).name_taps()
    assert sorted(tap_names(model)) == sorted(values)
    for name, value in run_with_taps(model, images.numpy()).items():
        np.testing.assert_array_equal(value, values[name], err_msg=name)
    assert to_proto(model).graph.output[0].name == "logits"


def test_a_tap_that_names_another_value_is_found(proto, references) -> None:
    names = {"blocks.0.attn.query": "blocks.0.attn.key", "blocks.0.attn.key": "blocks.0.attn.query"}
    _renamed(proto, lambda name: names.get(name, name))
    found = _differences(proto, references)
    assert {each.layer for each in found} == {"blocks.0.attn"}


def test_another_order_of_operands_and_another_branch_are_found(proto, references) -> None:
    concat = next(n for n in proto.graph.node if n.name == "embedding/Concat_2")
    concat.input[:] = concat.input[::-1]
    (difference, *_) = _differences(proto, references)
    assert difference.layer == "embedding"
    concat.input[:] = concat.input[::-1]
    body = next(f for f in proto.functions if f.name == "BinaryLinearResidual")
    branches = {a.name: a.g for n in body.node if n.op_type == "If" for a in n.attribute}
    (turn,) = branches["then_branch"].node
    turn.attribute[0].ints[:] = [0, 1, 2]
    (difference,) = _differences(proto, references)
    assert difference.name == "dev.vitc.BinaryLinearResidual"
    assert "Transpose" in difference.what
