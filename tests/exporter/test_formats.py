from __future__ import annotations

import copy

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch

from vitc.dialect import DOMAIN, OPS
from vitc.exporter import export, trace
from vitc.models import observe
from vitc.onnx_files import load_onnx, run_with_taps, session, tap_names

FORMS = ("packed", "int8", "float")
BITS = ("input", "query", "key", "value", "mask", "context", "hidden")


@pytest.fixture(scope="module")
def tapped(model, images):
    seen = {}
    with observe(lambda event: seen.__setitem__(event.name, (event.kind, event.value))):
        model(images)
    return {name: (kind, value.detach().numpy()) for name, (kind, value) in seen.items()}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("batch", [1, 3])
def test_logits_equal_those_of_pytorch_for_any_batch(
    exported, model, images, form, batch
) -> None:
    logits = session(exported[form].path).run(["logits"], {"input": images[:batch].numpy()})[0]
    # Same bits; only the float parts (embedding, residual stream, head) round differently.
    np.testing.assert_allclose(logits, model(images[:batch]).detach().numpy(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_every_tap_has_its_name_and_its_value(exported, images, tapped, form) -> None:
    found, _ = load_onnx(exported[form].path)
    assert tap_names(found) == list(tapped)
    values = run_with_taps(found, images.numpy())
    for name, (kind, value) in tapped.items():
        if kind == "float":
            np.testing.assert_allclose(values[name], value, rtol=0, atol=1e-5, err_msg=name)
        elif kind == "bits" and form == "float":
            np.testing.assert_array_equal(values[name] > 0, value == 1, err_msg=name)
        else:
            np.testing.assert_array_equal(values[name], value, err_msg=name)
        if kind == "bits" and form != "float":
            assert values[name].dtype == np.uint8
    assert {name.rpartition(".")[2] for name, (k, _) in tapped.items() if k == "bits"} == set(BITS)


def test_a_packed_block_is_the_documented_sequence(exported) -> None:
    graph = onnx.load(exported["packed"].path).graph
    layers = {
        layer: [
            node.op_type
            for node in graph.node
            if any(p.key == "vitc.layer" and p.value == layer for p in node.metadata_props)
        ]
        for layer in ("embedding", "blocks.1.attn", "blocks.1.mlp", "blocks.1.si", "logits")
    }
    assert layers["embedding"] == [
        *("Shape", "Concat", "Expand", "Conv", "Reshape", "Transpose", "Concat", "Add")
    ]
    head = ["BinaryLinearThreshold", "Reshape", "Transpose"]
    assert layers["blocks.1.attn"] == [
        *("Binarize", "PackBits", *head, *head, *head, "PackBits", "PackBits", "BinaryScores"),
        *("RowBestMask", "Transpose", "PackBits", "PackBits", "MaskSignMatMul"),
        *("IntegerThreshold", "Transpose", "Reshape", "PackBits", "BinaryLinearResidual"),
    ]
    mix = ["Binarize", "PackBits", "BinaryLinearThreshold", "PackBits", "BinaryLinearResidual"]
    assert layers["blocks.1.mlp"] == mix
    assert layers["blocks.1.si"] == ["Transpose", *mix]
    assert layers["logits"] == ["BatchNormalization", "Gather", "Gemm"]


def test_only_the_packed_scheme_needs_the_dialect(exported) -> None:
    for form, result in exported.items():
        proto = onnx.load(result.path)
        domains = {node.domain for node in proto.graph.node}
        assert (DOMAIN in domains) == bool(proto.functions) == (form == "packed")
        assert (DOMAIN in {entry.domain for entry in proto.opset_import}) == (form == "packed")
        assert (proto.ir_version, proto.opset_import[0].version) == (10, 21)
        if form != "packed":
            assert not set(OPS) & {node.op_type for node in proto.graph.node}


def test_int8_multiplies_bits_by_signs_and_float_multiplies_floats(exported) -> None:
    assert exported["int8"].operators["MatMulInteger"] == 2 * (3 + 1 + 2 + 2 + 2)
    assert "MatMul" not in exported["int8"].operators
    assert exported["float"].operators["MatMul"] == 2 * (3 + 1 + 2 + 2 + 2)
    graph = onnx.load(exported["int8"].path).graph
    weights = [t for t in graph.initializer if t.name.endswith(".weight") and t.data_type == 3]
    assert len(weights) == 16
    for weight in weights:
        assert set(np.unique(onnx.numpy_helper.to_array(weight))) == {-1, 1}


def test_reshapes_have_constant_shapes_with_an_open_batch(exported) -> None:
    graph = onnx.load(exported["packed"].path).graph
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    reshapes = [node for node in graph.node if node.op_type == "Reshape"]
    assert len(reshapes) == 1 + 2 * 4
    for node in reshapes:
        shape = constants[node.input[1]]
        assert shape[0] == 0
        assert (shape[1:] > 0).all()


def test_the_batch_is_a_named_dimension_of_input_and_logits(exported) -> None:
    for result in exported.values():
        graph = onnx.load(result.path).graph
        shapes = [
            [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
            for value in (*graph.input, *graph.output)
        ]
        assert shapes == [["batch", 3, 16, 16], ["batch", 7]]


def test_uniform_constants_are_stored_once(exported) -> None:
    graph = onnx.load(exported["packed"].path).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    assert shapes["blocks.0.attn.query.lower"] == (1, 1)
    assert shapes["blocks.0.attn.query.upper"] == (5, 3)
    assert shapes["blocks.0.attn.output.gain"] == (1, 1)
    assert shapes["blocks.0.si.output.gain"] == (24, 1)
    assert shapes["blocks.0.mlp.hidden.weight"] == (40, 3)
    assert shapes["patch_embed.proj.weight"] == (24, 3, 8, 8)


def test_bits_survive_a_batch_of_extreme_images(exported, model) -> None:
    images = torch.zeros(3, 3, 16, 16)
    images[1] = 1e4
    images[2] = -1e4
    own = session(exported["packed"].path).run(["logits"], {"input": images.numpy()})[0]
    expected = model(images).detach().numpy()
    # The head multiplies values of about 1e4 times its weights.
    np.testing.assert_allclose(own, expected, rtol=1e-5, atol=1e-2)


def test_a_packed_file_inlined_by_another_tool_computes_the_same(exported, model, images) -> None:
    inlined, _ = load_onnx(exported["packed"].path)
    ir.passes.common.InlinePass()(inlined)
    logits = session(inlined).run(["logits"], {"input": images.numpy()})[0]
    np.testing.assert_allclose(logits, model(images).detach().numpy(), rtol=0, atol=1e-5)


def test_degenerate_parameters_keep_every_bit(model, images, tmp_path) -> None:
    odd = copy.deepcopy(model)
    with torch.no_grad():
        for block in odd.blocks:
            for linear in (block.attn.qkv, block.attn.proj, block.mlp.fc1, block.mlp2.fc2):
                linear.weight[::5] = 0
                linear.bias[::2] = 0
            block.norm1.weight[:2] = 0
            block.norm1.bias[1] = 0
            block.norm3.running_var[3] = 0
            block.attn.moveq.bias.zero_()
            block.attn.movefc.bias[:, 1:3] = torch.tensor([2.0, -1.0])[:, None]
            for shifts in (block.mlp, block.mlp2):
                shifts.prelu.weight[:3] = torch.tensor([0.0, -1.0, -0.0])
                shifts.moveact1.bias.zero_()
                shifts.moveact2.bias[:, :2] = 0
                shifts.movefc2.bias[:, :3] = 0
            block.learnablescaling[..., ::3] = 0
    seen = {}

    def see(event) -> None:
        seen[event.name] = (event.kind, event.value.numpy())

    with torch.no_grad(), observe(see):
        odd(images)
    again = trace(odd)
    for form in FORMS:
        result = export(again, tmp_path / f"{form}.onnx", form=form)
        values = run_with_taps(result.path, images.numpy())
        for name, (kind, value) in seen.items():
            if kind == "bits":
                np.testing.assert_array_equal(values[name] > 0, value == 1, err_msg=name)
        np.testing.assert_allclose(values["logits"], seen["logits"][1], rtol=0, atol=1e-5)
