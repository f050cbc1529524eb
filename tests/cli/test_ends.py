"""`vitc export --ends int8` from a checkpoint to a check, and what it refuses."""

from __future__ import annotations

import pytest

from vitc import api
from vitc.models import save


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("ends") / "m.safetensors"
    save(api.new("micro-swin", depth=1, seed=2), path)
    return path


def test_ends_from_a_checkpoint_to_a_check(vitc, checkpoint, tmp_path):
    onnx, folder = tmp_path / "m.onnx", tmp_path / "a"
    options = ("--ends", "int8", "--embedding", "int8", "--calibrate", "digits")
    done = vitc("export", checkpoint, *options, "--calibration-images", 8, "--out", onnx)
    assert done.code == 0, done.err
    assert "calibrated on random images" not in done.err
    assert vitc("compile", onnx, "--out", folder).code == 0
    done = vitc("check", folder, "--reference", checkpoint, "--json", "-", "--images", 2)
    assert done.code == 0, done.err
    found = done.json["rounded"]
    assert found["what"] == "int8 embedding and int8 ends"
    assert (found["images"], found["accuracy"]) == (2, None)
    for command in (("inspect", onnx), ("inspect", folder)):
        assert vitc(*command).code == 0
    plain = api.open(folder)
    assert [name for name, _, _ in plain.manifest.config["ends"]] == [
        "stages.1.merge.reduction",
        "head",
    ]


def test_random_images_are_said_to_be_random(vitc, checkpoint, tmp_path):
    done = vitc("export", checkpoint, "--ends", "int8", "--no-check", "--out", tmp_path / "m.onnx")
    assert done.code == 0
    assert "calibrated on random images, good for timing only" in done.err


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--calibrate", "digits"), 2, "--calibrate is for --ends int8"),
        (("--ends", "int4"), 1, "int4"),
        (("--ends", "int8", "--calibrate", "no/such/folder"), 1, "no/such/folder"),
    ],
)
def test_what_is_refused(vitc, checkpoint, tmp_path, options, code, said):
    out = tmp_path / "m.onnx"
    done = vitc("export", checkpoint, *options, "--out", out)
    assert done.code == code
    assert said in " ".join(done.err.split())
    assert not out.exists()
