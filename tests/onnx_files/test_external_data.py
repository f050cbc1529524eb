"""Data in other files: read when asked for, from the model's own folder only, by vitc only."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx.external_data_helper import convert_model_to_external_data

import vitc
from vitc.cli.main import app
from vitc.errors import VitcError
from vitc.models import save
from vitc.onnx_files import external_data, load_onnx, session
from vitc.onnx_files.external_data import tensors

DATA = "weights.bin"


@pytest.fixture
def whole(exported) -> onnx.ModelProto:
    return onnx.load(exported["packed"].path)


@pytest.fixture
def split(whole, tmp_path) -> Path:
    """The model in a folder of its own, its larger constants in a file beside it."""
    folder = tmp_path / "model"
    folder.mkdir()
    proto = onnx.ModelProto()
    proto.CopyFrom(whole)
    convert_model_to_external_data(proto, location=DATA, size_threshold=64)
    onnx.save(proto, folder / "m.onnx")
    assert (folder / DATA).stat().st_size > 1000
    return folder / "m.onnx"


def change(file: Path, **entries: str | None) -> onnx.TensorProto:
    """Rewrite what the last external constant says about its data."""
    proto = onnx.load(file, load_external_data=False)
    tensor = [t for t in proto.graph.initializer if t.external_data][-1]
    for key, value in entries.items():
        kept = [e for e in tensor.external_data if e.key != key]
        del tensor.external_data[:]
        tensor.external_data.extend(kept)
        if value is not None:
            tensor.external_data.add(key=key, value=value)
    file.write_bytes(proto.SerializeToString())
    return tensor


def refusal(file: Path) -> str:
    with pytest.raises(VitcError) as caught:
        load_onnx(file, allow_external_data=True)
    assert str(file) in caught.value.message
    assert "\n" not in str(caught.value)
    return caught.value.message


def test_it_is_refused_unless_asked_for(split):
    with pytest.raises(VitcError, match="does not read unasked") as caught:
        load_onnx(split)
    assert "--allow-external-data" in caught.value.hint
    with pytest.raises(VitcError, match="in other files"):
        session(split)


def test_leave_that_is_not_needed_is_an_error(exported):
    assert "keeps no data in other files" in refusal(exported["packed"].path)


def test_it_becomes_a_model_that_holds_everything(split, exported):
    model, facts = load_onnx(split, allow_external_data=True)
    (split.parent / DATA).unlink()
    again, own = load_onnx(exported["packed"].path)
    assert facts == own
    assert model.graph.initializers.keys() == again.graph.initializers.keys()
    for name, value in again.graph.initializers.items():
        found = model.graph.initializers[name].const_value
        np.testing.assert_array_equal(found.numpy(), value.const_value.numpy())
    session(model)


def test_a_file_below_the_folder_is_read_too(split):
    (split.parent / "a" / "b").mkdir(parents=True)
    (split.parent / "a" / "b" / DATA).write_bytes((split.parent / DATA).read_bytes())
    change(split, location=f"a/b/{DATA}")
    load_onnx(split, allow_external_data=True)


def test_nobody_else_opens_a_file(split, monkeypatch):
    # onnx and onnx-ir would open the data by its path; here the folder is the only path opened.
    opened = []
    real = os.open

    def watched(path, flags, *arguments, **named):
        opened.append((str(path), named.get("dir_fd") is not None))
        return real(path, flags, *arguments, **named)

    monkeypatch.setattr(os, "open", watched)
    monkeypatch.setattr(onnx, "load_external_data_for_model", None)
    monkeypatch.setattr(onnx.external_data_helper, "load_external_data_for_tensor", None)
    load_onnx(split, allow_external_data=True)
    assert {name for name, relative in opened if relative} == {DATA}
    assert {name for name, relative in opened if not relative} == {str(split.parent)}


@pytest.mark.parametrize(
    "location",
    ["../weights.bin", "a/../../weights.bin", "/etc/passwd", "", ".", "..", "a//b", "./weights.bin",
     "weights.bin/", "weights.bin\0.txt"],
)  # fmt: skip
def test_a_path_that_is_not_plain_is_refused(split, location):
    (split.parent.parent / DATA).write_bytes((split.parent / DATA).read_bytes())
    change(split, location=location)
    assert "no plain path below the model's folder" in refusal(split)


def test_an_absolute_path_into_the_folder_itself_is_refused(split):
    change(split, location=str(split.parent / DATA))
    assert "no plain path" in refusal(split)


def test_a_symbolic_link_is_refused_even_within_the_folder(split):
    (split.parent / DATA).rename(split.parent / "real.bin")
    (split.parent / DATA).symlink_to("real.bin")
    assert f"{DATA} is a symbolic link" in refusal(split)


def test_a_symbolic_link_on_the_way_is_refused(split):
    (split.parent / "real").mkdir()
    (split.parent / DATA).rename(split.parent / "real" / DATA)
    (split.parent / "way").symlink_to("real", target_is_directory=True)
    change(split, location=f"way/{DATA}")
    # The other constants still name the file at the old place.
    (split.parent / DATA).write_bytes((split.parent / "real" / DATA).read_bytes())
    assert "way is a symbolic link" in refusal(split)


def test_a_hard_link_is_refused(split, tmp_path):
    os.link(split.parent / DATA, tmp_path / "other")
    assert "hard link" in refusal(split)


@pytest.mark.parametrize("kind", ["folder", "pipe", "socket"])
def test_what_is_no_regular_file_is_refused_at_once(split, kind, tmp_path, monkeypatch):
    place = split.parent / DATA
    place.unlink()
    if kind == "folder":
        place.mkdir()
    elif kind == "pipe":
        os.mkfifo(place)
    else:
        monkeypatch.chdir(split.parent)  # names of sockets are short
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(DATA)
    assert ("no regular file" in refusal(split)) or ("cannot be opened" in refusal(split))


def test_a_missing_file_is_refused(split):
    (split.parent / DATA).unlink()
    assert f"{DATA} cannot be opened: No such file" in refusal(split)


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ({"offset": "1000000000"}, "ends beyond"),
        ({"length": "1000000000"}, "ends beyond"),
        ({"offset": "-1"}, "offset or length '-1'"),
        ({"offset": "0x10"}, "offset or length '0x10'"),
        ({"length": "9" * 30}, "offset or length"),
        ({"length": ""}, "offset or length ''"),
        ({"location": None}, "no plain path"),
        ({"basepath": "/"}, "described by basepath"),
        ({"length": "1"}, "not valid"),
        ({"length": None, "offset": None}, "not valid"),
    ],
)
def test_a_part_that_is_not_in_the_file_or_does_not_fit_is_refused(split, entries, says):
    change(split, **entries)
    assert says in refusal(split)


def test_a_key_given_twice_is_refused(split):
    proto = onnx.load(split, load_external_data=False)
    tensor = next(t for t in proto.graph.initializer if t.external_data)
    tensor.external_data.add(key="location", value="other.bin")
    split.write_bytes(proto.SerializeToString())
    assert "a key that is given twice" in refusal(split)


def test_data_both_inside_and_outside_is_refused(split):
    proto = onnx.load(split, load_external_data=False)
    next(t for t in proto.graph.initializer if t.external_data).raw_data = b"x"
    split.write_bytes(proto.SerializeToString())
    assert "both in the file and elsewhere" in refusal(split)


def test_all_parts_together_are_bounded(split, monkeypatch):
    # One byte on disk can be named by every constant.
    size = split.stat().st_size + (split.parent / DATA).stat().st_size
    monkeypatch.setattr(external_data, "LARGEST_FILE", size - 1)
    assert "larger than 2 GB" in refusal(split)


def _sparse(proto: onnx.ModelProto) -> onnx.TensorProto:
    sparse = proto.graph.sparse_initializer.add()
    sparse.values.name = "hidden"
    return sparse.values


def _default_of_a_function(proto: onnx.ModelProto) -> onnx.TensorProto:
    attribute = proto.functions[0].attribute_proto.add(name="hidden")
    return attribute.t


def _training(proto: onnx.ModelProto) -> onnx.TensorProto:
    return proto.training_info.add().initialization.initializer.add(name="hidden")


def _in_a_subgraph(proto: onnx.ModelProto) -> onnx.TensorProto:
    attribute = proto.graph.node[0].attribute.add(name="body", type=onnx.AttributeProto.GRAPH)
    return attribute.g.node.add().attribute.add(name="value").tensors.add(name="hidden")


@pytest.mark.parametrize("hide", [_sparse, _default_of_a_function, _training, _in_a_subgraph])
def test_a_reference_is_found_wherever_it_hides(whole, tmp_path, hide):
    tensor = hide(whole)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    assert tensor.name in [t.name for t in tensors(whole)]
    file = tmp_path / "m.onnx"
    file.write_bytes(whole.SerializeToString())
    with pytest.raises(VitcError, match="does not read unasked"):
        load_onnx(file)
    assert "no plain path" in refusal(file)


def vitc_says(*arguments: object) -> int:
    try:
        app([str(a) for a in arguments], standalone_mode=False)
    except VitcError:
        return 1
    return 0


def test_export_compile_check_run_and_inspect_take_it(model, split, tmp_path):
    save(model, tmp_path / "m.safetensors")
    allow, reference = "--allow-external-data", ("--reference", tmp_path / "m.safetensors")
    out = tmp_path / "out"
    assert vitc_says("compile", split, "--out", out, "--target", "x86-64-v2") == 1
    assert not out.exists()
    assert vitc_says("compile", split, "--out", out, "--target", "x86-64-v2", allow) == 0
    assert vitc_says("check", split, *reference) == 1
    assert vitc_says("check", split, *reference, allow) == 0
    assert vitc_says("inspect", split) == 1
    assert vitc_says("inspect", split, allow) == 0
    size = model.config.image_size
    images = np.random.default_rng(0).standard_normal((2, 3, size, size), dtype=np.float32)
    np.save(tmp_path / "x.npy", images)
    assert vitc_says("run", split, tmp_path / "x.npy") == 1
    assert vitc_says("run", split, tmp_path / "x.npy", allow, "--out", tmp_path / "y.npy") == 0
    # The artefact holds everything, so there it is an error to give leave.
    (split.parent / DATA).unlink()
    artefact = vitc.open(out)
    np.testing.assert_allclose(artefact(images), np.load(tmp_path / "y.npy"), rtol=0, atol=1e-4)
    assert vitc_says("check", out, *reference) == 0
    assert vitc_says("check", out, *reference, allow) == 1
    assert vitc_says("run", out, tmp_path / "x.npy", allow) == 1
    assert vitc_says("inspect", out, allow) == 1
    assert vitc_says("inspect", tmp_path / "m.safetensors", allow) == 1
