"""Damaged files that Python reads: refused with a `VitcError`, or read as something whole."""

from __future__ import annotations

import importlib.util
import io
import json
import sys
from contextlib import nullcontext, suppress
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import vitc
from vitc.compiler.compile import compile_model
from vitc.compiler.pipeline import make_plan
from vitc.devices.inputs import read_inputs
from vitc.errors import VitcError
from vitc.models import Preprocessing
from vitc.onnx_files import load_onnx, tap_names
from vitc.runtime import Artefact
from vitc.runtime.trace import traced_bytes
from vitc.targets import find


def _beside(name: str):
    path = Path(__file__).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(f"fuzz_{name}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


edits, shared = _beside("edits"), _beside("conftest")


def test_each_file_is_read_when_it_is_whole(
    onnx_bytes, safetensors_bytes, pickle_bytes, artefact, tmp_path
):
    for name, data in (("m.onnx", onnx_bytes), ("m.safetensors", safetensors_bytes)):
        (tmp_path / name).write_bytes(data)
    (tmp_path / "m.pth").write_bytes(pickle_bytes)
    load_onnx(tmp_path / "m.onnx")
    assert vitc.load(tmp_path / "m.safetensors").config == shared.CONFIG
    assert vitc.load(tmp_path / "m.pth").config == shared.CONFIG
    Artefact.open(artefact.path)


@pytest.fixture(autouse=True)
def no_runner(monkeypatch):
    monkeypatch.setattr(
        "vitc.compiler.compile.linking_runner", lambda *_: nullcontext(lambda: None)
    )


def read_and_lower(path: Path) -> None:
    """Read a file and, if that goes well, choose its kernels; the runner is not linked again."""
    with suppress(VitcError, _Enough):
        compile_model(path, "x86-64-v2", path.with_name("out"), progress=_stop_before_code)


class _Enough(Exception):  # noqa: N818 - nothing is wrong
    pass


def _stop_before_code(phase: str) -> None:
    if phase == "planning memory":
        raise _Enough


@shared.examples(250)
@given(edits.edits())
def test_bytes_of_an_onnx_file(onnx_bytes, tmp_path, changes):
    path = tmp_path / "m.onnx"
    path.write_bytes(edits.damaged(onnx_bytes, changes))
    read_and_lower(path)


NUMBERS = st.sampled_from([0, 1, -1, 2, 3, 7, 8, 9, 255, 65536, 1 << 31, (1 << 63) - 1, -(1 << 63)])


@shared.examples(150)
@given(st.data())
def test_structure_of_an_onnx_file(onnx_bytes, tmp_path, data):
    proto = onnx.ModelProto.FromString(onnx_bytes)
    graph = proto.graph
    for _ in range(data.draw(st.integers(1, 3))):
        kind = data.draw(st.sampled_from(["attribute", "dims", "input", "op", "drop", "value"]))
        bodies = [n for f in proto.functions for n in f.node] if data.draw(st.booleans()) else []
        node = data.draw(st.sampled_from(bodies or list(graph.node)))
        tensor = data.draw(st.sampled_from(list(graph.initializer)))
        if kind == "attribute" and node.attribute:
            attribute = data.draw(st.sampled_from(list(node.attribute)))
            if attribute.ints:
                position = data.draw(st.integers(0, len(attribute.ints) - 1))
                attribute.ints[position] = data.draw(NUMBERS)
            else:
                attribute.i = data.draw(NUMBERS)
        elif kind == "dims" and tensor.dims:
            tensor.dims[data.draw(st.integers(0, len(tensor.dims) - 1))] = data.draw(NUMBERS)
        elif kind == "value":
            array = onnx.numpy_helper.to_array(tensor).copy() if _whole(tensor) else np.zeros(1)
            if array.size and array.dtype == np.int64:
                flat = array.reshape(-1)
                flat[data.draw(st.integers(0, flat.size - 1))] = data.draw(NUMBERS)
                tensor.raw_data = array.tobytes()
        elif kind == "input" and node.input:
            names = [n.output[0] for n in graph.node] + [t.name for t in graph.initializer] + [""]
            position = data.draw(st.integers(0, len(node.input) - 1))
            node.input[position] = data.draw(st.sampled_from(names))
        elif kind == "op":
            node.op_type = data.draw(st.sampled_from([n.op_type for n in graph.node]))
        elif kind == "drop" and len(graph.node) > 1 and not bodies:
            graph.node.remove(node)
    path = tmp_path / "m.onnx"
    path.write_bytes(proto.SerializeToString())
    read_and_lower(path)


def _whole(tensor: onnx.TensorProto) -> bool:
    size = int(np.prod(list(tensor.dims), dtype=object)) if tensor.dims else 1
    kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    return size >= 0 and len(tensor.raw_data) == size * kind.itemsize


@shared.examples(150)
@given(edits.edits(), st.booleans())
def test_bytes_of_a_safetensors_file(safetensors_bytes, tmp_path, changes, header_only):
    last = 8 + int.from_bytes(safetensors_bytes[:8], "little") if header_only else None
    path = tmp_path / "m.safetensors"
    path.write_bytes(edits.damaged(safetensors_bytes, changes, 0, last))
    with suppress(VitcError):
        vitc.load(path)


@shared.examples(100)
@given(st.data())
def test_header_of_a_safetensors_file(safetensors_bytes, tmp_path, data):
    size = int.from_bytes(safetensors_bytes[:8], "little")
    header = json.loads(safetensors_bytes[8 : 8 + size])
    described = json.loads(header["__metadata__"]["vitc"])
    place = data.draw(st.sampled_from([described, described["config"], described["preprocessing"]]))
    name = data.draw(st.sampled_from(sorted(place)))
    place[name] = data.draw(JSON)
    header["__metadata__"]["vitc"] = json.dumps(described)
    text = json.dumps(header).encode()
    path = tmp_path / "m.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + safetensors_bytes[8 + size :])
    with suppress(VitcError):
        vitc.load(path)


JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(1 << 70), 1 << 70),
        st.sampled_from([0, 1, 3, 4, 12, 1 << 20, 1 << 31]),
        st.floats(),
        st.text(max_size=5),
        st.sampled_from(["bicubic", "bibert", "sibivit", "x86"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)


@shared.examples(150)
@given(edits.edits())
def test_bytes_of_a_pickled_checkpoint(pickle_bytes, tmp_path, changes):
    path = tmp_path / "m.pth"
    path.write_bytes(edits.damaged(pickle_bytes, changes))
    with suppress(VitcError):
        vitc.load(path)


@shared.examples(150)
@given(edits.edits(), st.sampled_from(["npy", "png"]))
def test_bytes_of_an_input(tmp_path, changes, suffix):
    whole = io.BytesIO()
    if suffix == "npy":
        np.save(whole, np.zeros((1, 3, 4, 4), np.float32))
    else:
        Image.new("RGB", (5, 4)).save(whole, "png")
    path = tmp_path / f"x.{suffix}"
    path.write_bytes(edits.damaged(whole.getvalue(), changes))
    with suppress(VitcError):
        list(read_inputs([path], shared.CONFIG, Preprocessing.for_image_size(4)).batches(4))


@shared.examples(200)
@given(st.data())
def test_a_manifest(artefact, data):
    manifest = json.loads((artefact.path / "manifest.json").read_text())
    place = manifest
    while True:
        keys = sorted(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = data.draw(JSON)
    opened = _with_manifest(artefact, json.dumps(manifest).encode())
    if opened is not None:
        # What is read of an opened artefact is whole, whatever the manifest says.
        assert opened.batch > 0
        again = json.dumps(opened.manifest.to_dict(), sort_keys=True)
        assert again == json.dumps(manifest, sort_keys=True)
        size = traced_bytes(opened.manifest.entries[0])
        if size < 1 << 20:
            with suppress(VitcError):
                opened.decode_trace(bytes(size), 1)


@shared.examples(150)
@given(edits.edits())
def test_bytes_of_a_manifest(artefact, changes):
    data = (artefact.path / "manifest.json").read_bytes()
    _with_manifest(artefact, edits.damaged(data, changes))


def _with_manifest(artefact: Artefact, data: bytes) -> Artefact | None:
    path = artefact.path / "manifest.json"
    whole = path.read_bytes()
    path.write_bytes(data)
    try:
        return Artefact.open(artefact.path)
    except VitcError:
        return None
    finally:
        path.write_bytes(whole)


def test_lowering_of_the_whole_file_goes_well(onnx_bytes, tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(onnx_bytes)
    model, _ = load_onnx(path)
    assert make_plan(model, find("x86-64-v2"), tap_names(model)).steps
