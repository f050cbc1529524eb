"""Every format in every reader: ONNX Runtime, onnx's own reference, OpenVINO."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
from onnx.reference import ReferenceEvaluator
from onnxruntime.quantization import quantize_dynamic

from tests.exporter.exports import exported_to, traced
from vitc.compiler import compile_model
from vitc.dialect import DOMAIN
from vitc.errors import VitcError
from vitc.exporter import build, export
from vitc.onnx_files import load_onnx, run_with_taps, tap_names
from vitc.verify import check

FORMATS = ("packed", "inlined", "int8", "float")


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("formats")
    paths = {form: exported_to(folder, form).path for form in ("packed", "int8", "float")}
    result = export(traced(), folder / "inlined.onnx", inline=True)
    # The counts are those of the model, however its operators are written.
    assert (result.binary_modules, result.binary_operators) == (12, 16)
    return {**paths, "inlined": result.path}


def _onnxruntime(path: Path, images: np.ndarray) -> np.ndarray:
    return onnxruntime.InferenceSession(path).run(["logits"], {"input": images})[0]


def _reference(path: Path, images: np.ndarray) -> np.ndarray:
    return ReferenceEvaluator(str(path)).run(["logits"], {"input": images})[0]


def _openvino(path: Path, images: np.ndarray) -> np.ndarray:
    core = openvino.Core()
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    return core.compile_model(core.read_model(path), "CPU", options)(images)[0]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("reader", [_onnxruntime, _reference, _openvino])
def test_every_reader_computes_what_pytorch_computes(files, model, images, reader, form) -> None:
    if (reader, form) == (_openvino, "packed"):
        # It knows no functions of a model, which is what inlined files are for.
        with pytest.raises(RuntimeError, match="PackBits"):
            reader(files[form], images.numpy())
        return
    expected = model(images).detach().numpy()
    # Same bits; only the float parts round differently.
    np.testing.assert_allclose(reader(files[form], images.numpy()), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("form", FORMATS)
def test_a_file_passes_the_checker_and_strict_inference_of_onnx(files, form) -> None:
    proto = onnx.load(files[form])
    onnx.checker.check_model(proto, full_check=True)
    onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)


@pytest.mark.parametrize("form", ["packed", "int8", "float"])
def test_a_file_can_be_quantized(files, images, tmp_path, form) -> None:
    # The classifier's weight is transposed for that; a description of the old one would be in the
    # way. What the quantizer does to a binary network's numbers is its own affair.
    quantize_dynamic(files[form], tmp_path / "quantized.onnx")
    made = {node.op_type for node in onnx.load(tmp_path / "quantized.onnx").graph.node}
    assert "MatMulInteger" in made
    assert "Gemm" not in made
    assert np.isfinite(_onnxruntime(tmp_path / "quantized.onnx", images.numpy())).all()


def test_an_inlined_file_has_standard_operators_and_packed_weights(files) -> None:
    proto, packed = onnx.load(files["inlined"]), onnx.load(files["packed"])
    assert not proto.functions
    assert {node.domain for node in proto.graph.node} == {""}
    assert [entry.domain for entry in proto.opset_import] == [""]
    # No reader has to take branches, and OpenVINO computes Mod as C does.
    assert not {"If", "Mod", "Identity", "Constant"} & {node.op_type for node in proto.graph.node}
    weights, same = (
        {t.name: t.raw_data for t in each.graph.initializer if t.name.endswith(".weight")}
        for each in (proto, packed)
    )
    assert weights == same
    assert any(name.startswith("blocks.") for name in weights)
    tables = [t for t in proto.graph.initializer if list(t.dims) == [256, 8]]
    assert len(tables) == 1


def test_an_inlined_file_hands_out_every_tap(files, images) -> None:
    inlined, packed = (load_onnx(files[form])[0] for form in ("inlined", "packed"))
    assert tap_names(inlined) == tap_names(packed)
    values = run_with_taps(inlined, images.numpy())
    for name, value in run_with_taps(packed, images.numpy()).items():
        assert values[name].dtype == value.dtype
        np.testing.assert_allclose(values[name], value, rtol=0, atol=1e-5, err_msg=name)


def test_an_inlined_file_is_checked_like_any_other(files, source, tmp_path) -> None:
    assert check(files["inlined"], source).equal
    proto = onnx.load(files["inlined"])
    weight = next(t for t in proto.graph.initializer if t.name == "blocks.1.mlp.hidden.weight")
    weight.raw_data = bytes([weight.raw_data[0] ^ 1]) + weight.raw_data[1:]
    onnx.save(proto, tmp_path / "m.onnx")
    report = check(tmp_path / "m.onnx", source)
    assert not report.equal
    assert [(each.layer, each.name) for each in report.parameters] == [
        ("blocks.1.mlp", "blocks.1.mlp.hidden.weight")
    ]


def test_the_compiler_asks_for_the_file_that_is_not_inlined(files, tmp_path) -> None:
    with pytest.raises(VitcError, match="exported with --inline") as caught:
        compile_model(files["inlined"], "x86-64-v2", tmp_path / "out")
    assert DOMAIN in caught.value.message
    assert "vitc export CKPT --out M.onnx" in caught.value.hint
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("form", ["int8", "float"])
def test_there_is_nothing_to_inline_in_other_formats(source, tmp_path, form) -> None:
    with pytest.raises(VitcError, match="nothing to inline"):
        build(source, form=form, inline=True)
    with pytest.raises(VitcError, match="nothing to inline"):
        export(source, tmp_path / "m.onnx", form=form, inline=True)
