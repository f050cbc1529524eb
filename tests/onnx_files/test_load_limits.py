"""Files that are well-formed protobuf, but beyond what an export of vitc can be."""

from __future__ import annotations

import onnx
import pytest
from onnx import TensorProto, helper

from vitc.dialect import DOMAIN
from vitc.errors import VitcError
from vitc.onnx_files import load, load_onnx
from vitc.onnx_files.parts import has_more_parts


@pytest.fixture
def proto(exported) -> onnx.ModelProto:
    return onnx.load(exported["packed"].path)


@pytest.fixture
def refusal(tmp_path):
    def refuse(proto: onnx.ModelProto) -> str:
        path = tmp_path / "changed.onnx"
        path.write_bytes(proto.SerializeToString())
        with pytest.raises(VitcError) as caught:
            load_onnx(path)
        assert str(path) in caught.value.message
        return caught.value.message

    return refuse


@pytest.mark.parametrize("version", [0, 1, 6, 14, 1 << 40])
def test_an_ir_version_out_of_range_is_refused(proto, refusal, version):
    proto.ir_version = version
    assert f"IR version {version}" in refusal(proto)


@pytest.mark.parametrize("version", [1, 12, 27, 1 << 40])
def test_an_opset_out_of_range_is_refused_also_in_bodies(proto, refusal, version):
    next(entry for entry in proto.functions[0].opset_import if not entry.domain).version = version
    assert f"opset {version}" in refusal(proto)


@pytest.mark.parametrize(
    ("limit", "says"),
    [("MOST_NODES", "nodes"), ("MOST_INITIALIZERS", "constants"), ("MOST_FUNCTIONS", "functions")],
)
def test_more_than_a_limit_is_refused(proto, refusal, monkeypatch, limit, says):
    monkeypatch.setattr(load, limit, 3)
    assert f"{says}; vitc reads up to 3" in refusal(proto)


@pytest.mark.parametrize("where", ["nodes", "strings", "unknown"])
def test_millions_of_empty_parts_are_refused_before_they_are_made(tmp_path, where):
    parts = (b"\x0a\x00" if where != "unknown" else b"\xf8\x01\x01") * 1_100_000
    if where == "strings":
        parts = b"\x0a" + _varint(len(parts)) + parts
    path = tmp_path / "m.onnx"
    path.write_bytes(b"\x3a" + _varint(len(parts)) + parts)
    with pytest.raises(VitcError, match="more than 1000000 parts"):
        load_onnx(path)


def _varint(number: int) -> bytes:
    more, last = divmod(number, 128)
    return bytes([last]) if not more else bytes([last | 128]) + _varint(more)


@pytest.mark.parametrize("end", [1, 2, 7, 100, 1000])
def test_parts_are_counted_as_far_as_a_damaged_file_goes(proto, end):
    data = proto.SerializeToString()
    assert has_more_parts(data, 1000)
    assert not has_more_parts(data, 100_000)
    assert not has_more_parts(data[:end], 100_000)
    assert not has_more_parts(b"\xff" * end, 100_000)


def test_functions_that_call_themselves_are_refused(proto, refusal):
    body = proto.functions[0]
    body.node.append(helper.make_node(body.name, list(body.input), ["again"], domain=body.domain))
    assert "call themselves" in refusal(proto)


def test_a_function_defined_twice_is_refused(proto, refusal):
    proto.functions.append(proto.functions[0])
    assert "twice" in refusal(proto)


def test_graphs_nested_too_deep_are_refused(proto, refusal):
    inner = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [], [])
    for _ in range(12):
        node = helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
        node.attribute[1].CopyFrom(helper.make_attribute("else_branch", 1))
        inner = helper.make_graph([node], "g", [], [])
    proto.graph.node.extend(inner.node)
    assert "nests graphs deeper" in refusal(proto)


@pytest.mark.parametrize("name", ["Loop", "Scan"])
def test_loops_are_refused(proto, refusal, name):
    proto.functions[0].node.append(helper.make_node(name, [], ["z"]))
    assert f"uses {name}" in refusal(proto)


@pytest.mark.parametrize("dims", [[1 << 20, 1 << 20], [-1], [1 << 62, 1 << 62]])
def test_a_constant_of_an_absurd_shape_is_refused(proto, refusal, dims):
    proto.graph.initializer[0].dims[:] = dims
    assert proto.graph.initializer[0].name in refusal(proto)


def test_a_constant_whose_data_does_not_fit_its_shape_is_refused(proto, refusal):
    weight = next(t for t in proto.graph.initializer if t.data_type == TensorProto.UINT8)
    weight.raw_data = weight.raw_data[:-1]
    assert "not valid" in refusal(proto)


@pytest.mark.parametrize("sizes", [(3, 1 << 30, 1 << 30), (3, 0, 16), (3, -4, 16)])
def test_an_input_of_an_absurd_size_is_refused(proto, refusal, sizes):
    for dim, size in zip(proto.graph.input[0].type.tensor_type.shape.dim[1:], sizes, strict=True):
        dim.dim_value = size
    assert "the input input is no batch" in refusal(proto)


def test_a_name_that_is_no_utf_8_is_refused(exported, tmp_path):
    # Found by fuzzing: it was read, and failed when it was to be written again.
    data = exported["packed"].path.read_bytes()
    assert data.count(b"\x12\x04vitc") >= 1
    path = tmp_path / "m.onnx"
    path.write_bytes(data.replace(b"\x12\x04vitc", b"\x12\x04\x80itc", 1))
    with pytest.raises(VitcError, match="not a valid vitc model"):
        load_onnx(path)


def test_an_input_that_is_no_tensor_is_refused(proto, refusal):
    proto.graph.input[0].type.Clear()
    assert "the input input is no batch" in refusal(proto)


@pytest.mark.parametrize("text", ["[" * 100_000, "1" * 5000, "\ud800".encode("utf-8", "replace")])
def test_properties_that_json_chokes_on_are_refused(proto, refusal, text):
    next(entry for entry in proto.metadata_props if entry.key == "vitc.labels").value = text
    assert "vitc.labels" in refusal(proto)


def test_the_dialect_s_own_operators_cannot_hide_in_another_domain(proto, refusal):
    node = next(node for node in proto.graph.node if node.domain == DOMAIN)
    node.domain = ""
    assert "not valid" in refusal(proto)
