"""Same value, same name: the bytes of a file follow from its model alone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest

from tests.exporter.exports import CONFIG
from vitc.dialect.bodies import function_protos, functions
from vitc.dialect.proto import to_proto
from vitc.exporter import build
from vitc.exporter.naming import name_everything

FORMS = ("packed", "int8", "float")
ROOT = Path(__file__).parents[2]

EXPORT = """
import sys
from pathlib import Path
from tests.exporter.exports import CONFIG, exported_to
from vitc.exporter import export
from vitc.models.initialise import random_model

before, folder = sys.argv[1:]
for depth in range(int(before)):
    other = random_model(CONFIG.replace(depth=depth + 1), seed=depth)
    export(other, Path(folder) / "other.onnx", form="int8")
for form in ("packed", "int8", "float"):
    exported_to(Path(folder), form)
"""


def _exported_elsewhere(folder: Path, before: int) -> dict[str, bytes]:
    """The files of a process that exported other networks before."""
    folder.mkdir()
    subprocess.run(
        [sys.executable, "-c", EXPORT, str(before), str(folder)],
        check=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": str(7 + before)},
    )
    return {form: (folder / f"{form}.onnx").read_bytes() for form in FORMS}


def test_a_file_is_the_same_from_any_process_whatever_that_exported_before(
    exported, tmp_path
) -> None:
    fresh = _exported_elsewhere(tmp_path / "fresh", 0)
    assert _exported_elsewhere(tmp_path / "used", 1) == fresh
    assert {form: exported[form].path.read_bytes() for form in FORMS} == fresh


def test_a_traced_model_is_not_changed_by_what_is_made_of_it(source, exported) -> None:
    for form in (*FORMS, *FORMS):
        data = to_proto(build(source, form=form)[0]).SerializeToString(deterministic=True)
        assert data == exported[form].path.read_bytes()


@pytest.mark.parametrize("form", FORMS)
def test_names_do_not_depend_on_the_names_before(source, exported, form) -> None:
    model, _ = build(source, form=form)
    for number, node in enumerate(model.graph):
        node.name = f"n{number}"
        node.doc_string = "/home/someone/model.py:3"
        node.metadata_props["pkg.torch.onnx.stack_trace"] = "/home/someone/model.py"
        for value in node.outputs:
            if "vitc.tap" not in value.metadata_props and not value.is_graph_output():
                # Some of the names that others are to get.
                value.name = f"blocks.0.attn.query/Reshape_{number % 3}_{number}"
                value.doc_string = "hidden"
        attributes = list(node.attributes.items())[::-1]
        node.attributes.clear()
        node.attributes.update(attributes)
    name_everything(model, source.frozen.state_dict().keys())
    data = to_proto(model).SerializeToString(deterministic=True)
    assert data == exported[form].path.read_bytes()


@pytest.mark.parametrize("form", FORMS)
def test_a_value_is_named_after_its_tap_its_operator_and_an_ordinal(exported, form) -> None:
    graph = onnx.load(exported[form].path).graph
    taps = {info.name for info in graph.value_info if info.metadata_props} | {"logits"}
    for node in graph.node:
        tap, _, rest = node.name.partition("/")
        assert tap in taps
        assert re.fullmatch(rf"{node.op_type}(_([2-9]|[1-9]\d+))?", rest), node.name
        assert list(node.output) in ([node.name], [tap])
    names = [node.name for node in graph.node]
    assert len(set(names)) == len(names)
    assert "blocks.1.attn.query/Reshape" in names
    assert "embedding/Concat_2" in names


def test_constants_stand_in_the_order_of_their_readers(exported) -> None:
    for result in exported.values():
        graph = onnx.load(result.path).graph
        constants = [tensor.name for tensor in graph.initializer]
        read = [name for node in graph.node for name in node.input if name in set(constants)]
        assert constants == list(dict.fromkeys(read))


def test_a_file_holds_no_notes_but_its_own(exported) -> None:
    for result in exported.values():
        proto = onnx.load(result.path)
        graph = proto.graph
        parts = [*graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer]
        for part in (proto, graph, *parts):
            assert not part.doc_string
            assert all(entry.key.startswith("vitc.") for entry in part.metadata_props)
        for node in graph.node:
            names = [attribute.name for attribute in node.attribute]
            assert names == sorted(names)


def test_bodies_are_named_after_their_operators_also_in_branches() -> None:
    for name, body in function_protos().items():
        nodes = list(body.node)
        for node in nodes:
            nodes += [inner for a in node.attribute if a.HasField("g") for inner in a.g.node]
            last = node.name.rpartition("/")[2]
            assert re.fullmatch(rf"{node.op_type}(_([2-9]|[1-9]\d+))?", last), (name, node.name)
            inner = set(node.output) - set(body.output)
            assert inner in (set(), {node.name})


def test_a_constant_renamed_in_one_body_keeps_its_name_in_the_next() -> None:
    before = [body.SerializeToString(deterministic=True) for body in function_protos().values()]
    renamed = 0
    for body in functions().values():
        for node in body:
            value = node.attributes.get("value")
            if value is not None and value.type == ir.AttributeType.TENSOR:
                value.as_tensor().name = "another"
                renamed += 1
    assert renamed
    after = [body.SerializeToString(deterministic=True) for body in function_protos().values()]
    assert after == before


def test_value_info_describes_what_nodes_make_and_no_constant(exported) -> None:
    for result in exported.values():
        graph = onnx.load(result.path).graph
        made = {name for node in graph.node for name in node.output}
        described = {info.name for info in graph.value_info}
        assert described <= made
        assert {f"blocks.{i}.mlp.output" for i in range(CONFIG.depth)} <= described


def test_a_body_stands_behind_those_that_it_calls(exported) -> None:
    known: set[str] = set()
    for body in onnx.load(exported["packed"].path).functions:
        called = {node.op_type for node in body.node if node.domain == body.domain}
        assert called <= known, body.name
        known.add(body.name)
    assert {"UnpackBits", "BinaryLinear", "BinaryLinearThreshold"} <= known
