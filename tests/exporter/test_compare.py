from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from vitc.exporter import build, differing_constants, load_onnx


@pytest.fixture(scope="module")
def references(model, trace_once) -> dict[str, ir.Model]:
    return {scheme: build(model, scheme=scheme)[0] for scheme in ("packed", "int8", "float")}


@pytest.fixture
def proto(exported) -> onnx.ModelProto:
    return onnx.load(exported["packed"].path)


def _differences(proto, references, scheme="packed"):
    return differing_constants(ir.from_proto(proto), references[scheme])


def _change(proto, name: str, change) -> None:
    tensor = next(t for t in proto.graph.initializer if t.name == name)
    array = onnx.numpy_helper.to_array(tensor).copy()
    tensor.CopyFrom(onnx.numpy_helper.from_array(change(array), name))


@pytest.mark.parametrize("scheme", ["packed", "int8", "float"])
def test_a_file_equals_a_fresh_export_of_its_model(exported, references, scheme) -> None:
    model, _ = load_onnx(exported[scheme].path)
    assert differing_constants(model, references[scheme]) == ()


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
    extra = onnx.helper.make_node("Identity", ["embedding"], ["spare"], "spare")
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
