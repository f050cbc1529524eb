"""A file whose operators, types or shapes contradict each other is one sentence, wherever."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import vitc
from vitc.bench import inspect
from vitc.compiler import compile_model
from vitc.devices import LocalDevice
from vitc.errors import VitcError
from vitc.onnx_files import load_onnx
from vitc.verify import check
from vitc.verify.portable import check_against_onnx

Change = Callable[[onnx.ModelProto], None]
ATTENTION = "blocks.1.attn"


def _node(proto: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(node for node in proto.graph.node if node.name == name)


def _attribute(name: str, attribute: str, value: int | float | list[int]) -> Change:
    def change(proto: onnx.ModelProto) -> None:
        node = _node(proto, name)
        kept = [each for each in node.attribute if each.name != attribute]
        assert len(kept) == len(node.attribute) - 1
        del node.attribute[:]
        node.attribute.extend([*kept, onnx.helper.make_attribute(attribute, value)])

    return change


def _constant(name: str, array: np.ndarray) -> Change:
    def change(proto: onnx.ModelProto) -> None:
        tensor = next(each for each in proto.graph.initializer if each.name == name)
        tensor.CopyFrom(numpy_helper.from_array(array, name))

    return change


def _inputs(name: str, edit: Callable[[list[str]], list[str]]) -> Change:
    def change(proto: onnx.ModelProto) -> None:
        node = _node(proto, name)
        node.input[:] = edit(list(node.input))

    return change


def _two_outputs(proto: onnx.ModelProto) -> None:
    _node(proto, f"{ATTENTION}.mask/RowBestMask").output.append("second")


def _unknown_attribute(proto: onnx.ModelProto) -> None:
    node = _node(proto, f"{ATTENTION}.mask/RowBestMask")
    node.attribute.append(onnx.helper.make_attribute("axis", 9))


def _another_shape_said(proto: onnx.ModelProto) -> None:
    info = next(each for each in proto.graph.value_info if each.name == f"{ATTENTION}.query")
    info.type.tensor_type.shape.dim[3].dim_value += 1


def _another_type_said(proto: onnx.ModelProto) -> None:
    info = next(each for each in proto.graph.value_info if each.name == f"{ATTENTION}.scores")
    info.type.tensor_type.elem_type = onnx.TensorProto.INT64


QUERY, KEYS = f"{ATTENTION}.query/BinaryLinearThreshold", f"{ATTENTION}.scores/PackBits_2"
SCORES, MASK = f"{ATTENTION}.scores/BinaryScores", f"{ATTENTION}.mask/RowBestMask"
OUTPUT, CONTEXT = f"{ATTENTION}.output/BinaryLinearResidual", f"{ATTENTION}.context"
FLOATS = np.ones(24, np.float32)

FAULTS: dict[str, tuple[Change, str]] = {
    "k 2^40": (_attribute(QUERY, "k", 1 << 40), "its k is 1099511627776, which is not within"),
    "k -3": (_attribute(QUERY, "k", -3), "its k is -3, which is not within"),
    "k 0": (_attribute(SCORES, "k", 0), "its k is 0, which is not within"),
    "k a float": (_attribute(QUERY, "k", 24.0), "its k is no int"),
    "k too large": (_attribute(QUERY, "k", 25), "its x holds 24 bits, not the 25 of its k"),
    "k in the same byte": (_attribute(QUERY, "k", 23), "its x holds 24 bits, not the 23 of its k"),
    "k of PackBits": (_attribute(KEYS, "k", 9), "its bits is .*, where 8 should be 9"),
    "negative slack": (_attribute(MASK, "slack", -1), "its slack is -1, which is not within 0"),
    "slack 2^40": (_attribute(MASK, "slack", 1 << 40), "its slack is 1099511627776"),
    "transposed 2": (_attribute(OUTPUT, "transposed", 2), "its transposed is 2"),
    "turned residual": (_attribute(OUTPUT, "transposed", 1), "its residual is .* should be"),
    "unknown attribute": (_unknown_attribute, "an attribute axis, which RowBestMask does not know"),
    "two outputs": (_two_outputs, "it has 2 outputs, not 1"),
    "input left out": (_inputs(QUERY, lambda names: names[:-1]), "it has 5 inputs, not 6"),
    "empty input": (_inputs(QUERY, lambda names: [names[0], "", *names[2:]]), "it has no weight"),
    "unpacked input": (
        _inputs(SCORES, lambda names: [f"{ATTENTION}.query", names[1]]),
        "its query is .*, where 8 should be 1 for 8 bits",
    ),
    "integers for bits": (_inputs(KEYS, lambda _: ["blocks.0.attn.scores"]), "int32, not uint8"),
    "short scale": (_constant(f"{ATTENTION}.query.scale", FLOATS[:5]), "where 5 should be 24"),
    "double scale": (
        _constant(f"{ATTENTION}.query.scale", FLOATS.astype(np.float64)),
        "its scale is float64, not float32",
    ),
    "rank of thresholds": (_constant(f"{ATTENTION}.key.upper", FLOATS), "has 1 axes, not 2"),
    "groups that split no rows": (
        _constant(f"{ATTENTION}.key.upper", np.ones((5, 5), np.float32)),
        "its upper is",
    ),
    "narrow weight": (
        _constant(f"{ATTENTION}.output.weight", np.ones((24, 2), np.uint8)),
        "its weight is .*, where 2 should be 3 for 24 bits",
    ),
    "threshold that does not broadcast": (
        _constant(f"{CONTEXT}.threshold", np.ones((7, 1), np.int32)),
        "do not broadcast",
    ),
    "axis out of range": (_attribute("embedding/Concat_2", "axis", 9), "axis must be in"),
    "permutation out of range": (
        _attribute(f"{ATTENTION}.query/Transpose", "perm", [0, 1, 2, 7]),
        "perm",
    ),
    "impossible reshape": (_constant(f"{CONTEXT}.shape", np.array([0, 5, 29])), "Reshape"),
    "another shape said": (_another_shape_said, "where the file says"),
    "another type said": (_another_type_said, "where the file says int64"),
}


@pytest.fixture
def damaged(exported, tmp_path, request):
    change, says = FAULTS[request.param]
    proto = onnx.load(exported["packed"].path)
    change(proto)
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    return tmp_path / "m.onnx", says


@pytest.mark.parametrize("damaged", FAULTS, indirect=True)
def test_a_contradiction_names_its_node_and_layer(damaged) -> None:
    path, says = damaged
    with pytest.raises(VitcError, match=says) as caught:
        load_onnx(path)
    assert str(path) in caught.value.message
    assert "layer" in caught.value.message
    assert "\n" not in str(caught.value)
    assert "Error" not in caught.value.message


@pytest.mark.parametrize("damaged", ["k 2^40", "k -3", "negative slack"], indirect=True)
def test_every_command_says_the_same(damaged, source, tmp_path) -> None:
    path, _ = damaged
    np.save(tmp_path / "x.npy", np.zeros((1, 3, 16, 16), np.float32))
    sentences = set()
    for command in (
        lambda: vitc.predict(path, [tmp_path / "x.npy"]),
        lambda: compile_model(path, "x86-64-v2", tmp_path / "out"),
        lambda: check(path, source),
        lambda: inspect(path),
    ):
        with pytest.raises(VitcError) as caught:
            command()
        sentences.add(str(caught.value))
    assert len(sentences) == 1, sentences


def test_a_slack_beyond_every_distance_is_compiled_too(exported, tmp_path) -> None:
    proto = onnx.load(exported["packed"].path)
    _attribute(MASK, "slack", (1 << 30) - 1)(proto)
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    artefact = compile_model(tmp_path / "m.onnx", "x86-64-v2", tmp_path / "out")
    assert check_against_onnx(artefact, LocalDevice()).equal


@pytest.mark.parametrize("form", ["packed", "int8", "float"])
def test_a_file_that_says_nothing_of_its_values_is_read(exported, tmp_path, form) -> None:
    proto = onnx.load(exported[form].path)
    del proto.graph.value_info[:]
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    assert load_onnx(tmp_path / "m.onnx")[1].form == form


def test_a_wrong_attribute_inside_a_branch_is_found(exported, tmp_path) -> None:
    proto = onnx.load(exported["packed"].path)
    helper = onnx.helper
    branches = [
        helper.make_graph(
            [helper.make_node("RowBestMask", [f"{ATTENTION}.scores"], [name], slack=slack,
                              domain="dev.vitc")],
            name, [], [helper.make_tensor_value_info(name, onnx.TensorProto.UINT8, None)],
        )
        for name, slack in (("one", 3), ("other", -3))
    ]  # fmt: skip
    graph = proto.graph
    graph.initializer.append(numpy_helper.from_array(np.array(True), "condition"))
    place = [node.name for node in graph.node].index(MASK)
    choice = helper.make_node(
        "If", ["condition"], ["chosen"], "choice", then_branch=branches[0], else_branch=branches[1]
    )
    graph.node.insert(place, choice)
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(VitcError, match="its slack is -3"):
        load_onnx(tmp_path / "m.onnx")
