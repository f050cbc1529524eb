from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx.external_data_helper import convert_model_to_external_data

from vitc.dialect import DOMAIN
from vitc.errors import VitcError
from vitc.onnx_files import load_onnx, read_facts


@pytest.fixture
def proto(exported) -> onnx.ModelProto:
    return onnx.load(exported["packed"].path)


def _refusal(path) -> str:
    with pytest.raises(VitcError) as caught:
        load_onnx(path)
    assert "\n" not in str(caught.value)
    assert str(path) in caught.value.message
    return caught.value.message


def _saved(proto: onnx.ModelProto, folder) -> object:
    path = folder / "changed.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def _set(proto: onnx.ModelProto, key: str, value: str) -> None:
    entry = next(entry for entry in proto.metadata_props if entry.key == key)
    entry.value = value


def test_a_missing_file_and_a_folder_are_refused(tmp_path) -> None:
    assert "does not exist" in _refusal(tmp_path / "missing.onnx")
    assert "cannot be read" in _refusal(tmp_path)


@pytest.mark.parametrize("data", [b"", b"not onnx at all", bytes(range(256)), b"\x00" * 64])
def test_garbage_is_refused(tmp_path, data) -> None:
    path = tmp_path / "garbage.onnx"
    path.write_bytes(data)
    assert "truncated or no ONNX file" in _refusal(path)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(exported, tmp_path, share) -> None:
    data = exported["packed"].path.read_bytes()
    path = tmp_path / "short.onnx"
    path.write_bytes(data[: int(len(data) * share)])
    _refusal(path)


def test_an_onnx_file_of_another_tool_is_no_vitc_model(proto, tmp_path) -> None:
    del proto.metadata_props[:]
    assert "no vitc model" in _refusal(_saved(proto, tmp_path))


@pytest.mark.parametrize("dialect", ["2", "", "one"])
def test_another_dialect_version_is_refused(proto, tmp_path, dialect) -> None:
    _set(proto, "vitc.dialect", dialect)
    assert "knows version 1" in _refusal(_saved(proto, tmp_path))


def test_another_import_of_the_dialect_is_refused(proto, tmp_path) -> None:
    next(entry for entry in proto.opset_import if entry.domain == DOMAIN).version = 3
    assert "version 3" in _refusal(_saved(proto, tmp_path))


def test_an_unknown_scheme_is_refused(proto, tmp_path) -> None:
    _set(proto, "vitc.scheme", "ternary")
    assert "ternary" in _refusal(_saved(proto, tmp_path))


def test_an_unknown_domain_is_refused_also_inside_bodies(proto, tmp_path) -> None:
    proto.functions[0].node[0].domain = "com.example"
    assert "com.example" in _refusal(_saved(proto, tmp_path))


def test_an_operator_that_the_dialect_lacks_is_refused(proto, tmp_path) -> None:
    node = next(node for node in proto.graph.node if node.domain == DOMAIN)
    node.op_type = "TernaryLinear"
    assert "TernaryLinear" in _refusal(_saved(proto, tmp_path))


def test_external_data_is_refused(proto, tmp_path) -> None:
    convert_model_to_external_data(proto, location="weights.bin", size_threshold=64)
    onnx.save(proto, tmp_path / "external.onnx")
    assert "other files" in _refusal(tmp_path / "external.onnx")


@pytest.mark.parametrize("key", ["vitc.config", "vitc.preprocessing", "vitc.labels", "vitc.passes"])
@pytest.mark.parametrize("text", ["{", "3", '"x"'])
def test_malformed_properties_are_refused(proto, tmp_path, key, text) -> None:
    _set(proto, key, text)
    assert key in _refusal(_saved(proto, tmp_path))


def test_other_inputs_and_outputs_are_refused(proto, tmp_path) -> None:
    proto.graph.input[0].name = "pixels"
    assert "maps pixels to logits" in _refusal(_saved(proto, tmp_path))


def test_a_graph_with_a_hole_is_refused(proto, tmp_path) -> None:
    del proto.graph.node[20]
    assert "not valid ONNX" in _refusal(_saved(proto, tmp_path))


def test_a_file_beyond_the_limit_is_refused(exported, monkeypatch) -> None:
    monkeypatch.setattr("vitc.onnx_files.load.LARGEST_FILE", 1000)
    assert "end at 2 GB" in _refusal(exported["packed"].path)


def test_a_loaded_model_has_its_constants_in_memory(exported, tmp_path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(exported["packed"].path.read_bytes())
    model, facts = load_onnx(path)
    path.unlink()
    weight = model.graph.initializers["blocks.0.attn.query.weight"].const_value.numpy()
    assert weight.dtype == np.uint8
    assert facts.form == "packed"


def test_facts_of_metadata_without_optional_properties_are_empty() -> None:
    facts = read_facts({"vitc.dialect": "1", "vitc.scheme": "int8"})
    assert (facts.config, facts.labels, facts.passes) == ({}, (), ())
    assert facts.source_sha256 is None
    with_source = {"vitc.dialect": "1", "vitc.scheme": "int8", "vitc.source_sha256": "ab"}
    assert read_facts(with_source).source_sha256 == "ab"
    labels = json.dumps(["cat"])
    assert read_facts({**with_source, "vitc.labels": labels}).labels == ("cat",)
