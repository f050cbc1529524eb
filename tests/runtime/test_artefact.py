"""Opening an artefact refuses whatever is not the folder that was compiled."""

from __future__ import annotations

import json

import numpy as np
import pytest

from vitc.errors import VitcError
from vitc.runtime import Artefact
from vitc.runtime.manifest import TargetFacts
from vitc.targets import TARGETS


def edit(artefact: Artefact, **changes) -> None:
    path = artefact.path / "manifest.json"
    manifest = json.loads(path.read_text())
    for key, value in changes.items():
        if value is None:
            del manifest[key]
        else:
            manifest[key] = value
    path.write_text(json.dumps(manifest))


def test_an_empty_folder_is_no_artefact(tmp_path):
    with pytest.raises(VitcError, match=r"no manifest\.json"):
        Artefact.open(tmp_path)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(VitcError, match="nowhere"):
        Artefact.open(tmp_path / "nowhere")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"format": 1}', "[" * 100000])
def test_a_damaged_manifest_is_refused(artefact, text):
    (artefact.path / "manifest.json").write_text(text)
    with pytest.raises(VitcError, match="manifest"):
        Artefact.open(artefact.path)


@pytest.mark.parametrize("version", [1, 2, 4])
def test_a_manifest_of_another_format_is_refused_and_says_to_compile_again(artefact, version):
    edit(artefact, format=version)
    with pytest.raises(VitcError, match=rf"has format {version}, this vitc reads 3") as refused:
        Artefact.open(artefact.path)
    assert refused.value.hint.startswith("Compile the model again")


def test_an_unknown_target_is_refused(artefact):
    edit(artefact, target={"name": "abacus"})
    with pytest.raises(VitcError, match="abacus"):
        Artefact.open(artefact.path)


@pytest.mark.parametrize("name", ["libvitc_model.so", "model.onnx", "vitc-run", "vitc_model.h"])
def test_a_changed_file_is_named(artefact, name):
    path = artefact.path / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(VitcError, match=name):
        Artefact.open(artefact.path)
    assert Artefact.open(artefact.path, verify=False).changed_files() == [name]


def test_a_manifest_cannot_point_outside_its_folder(artefact, tmp_path):
    (tmp_path / "outside").write_bytes(b"")
    files = dict(artefact.manifest.digests)
    files["../outside"] = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    edit(artefact, files=files)
    with pytest.raises(VitcError, match="outside"):
        Artefact.open(artefact.path)


def test_a_library_for_another_processor_is_not_loaded(artefact):
    target = TargetFacts.of(TARGETS["armv7"]).to_dict()
    edit(artefact, target=target)
    with pytest.raises(VitcError, match="armv7l processor"):
        Artefact.open(artefact.path).load()


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((1, 3, 12, 13), np.float32), "12 x 13"),
        (np.zeros((3, 12, 12), np.float32), "wanted N x 3 x 12 x 12"),
        (np.zeros((0, 3, 12, 12), np.float32), "wanted N x 3 x 12 x 12"),
        (np.zeros((1, 3, 12, 12), np.uint8), "uint8"),
        (np.full((1, 3, 12, 12), np.nan, np.float32), "NaN"),
    ],
)
def test_images_that_do_not_fit_are_refused(original, images, message):
    with pytest.raises(VitcError, match=message):
        original(images)


def test_a_trace_of_another_length_is_refused(original):
    with pytest.raises(VitcError, match="trace"):
        original.decode_trace(b"abc", 1)


def test_calling_an_artefact_gives_a_row_of_logits_for_every_image(original, images):
    logits = original(images)
    assert logits.shape == (3, 5)
    assert np.array_equal(original(images[2:]), logits[2:])
    assert np.array_equal(original.load(2).trace(images)["logits"], logits)
