"""Checkpoints of other programs: what is stated goes all the way, what is assumed is said."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from vitc import api
from vitc.models import load
from vitc.models.stated import Stated, read_labels
from vitc.onnx_files import load_onnx

NAMES = tuple(f"kind {i} é" for i in range(10))
STATED = ("--mean", "0.1,0.2,0.3", "--std", 0.5, "--resize", "40x44", "--interpolation", "nearest")


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """A checkpoint as a training program leaves it: wrapped twice, and beside its averages."""
    model = api.new("micro", depth=1, seed=5)
    state = model.state_dict()
    averages = {name: value * 2 if name == "head.bias" else value for name, value in state.items()}
    path = tmp_path_factory.mktemp("foreign") / "c.pth"
    wrapped = {f"module.{name}": value for name, value in state.items()}
    torch.save({"model": wrapped, "model_ema": averages, "epoch": 7}, path)
    return path


@pytest.fixture
def labels(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("\n".join(NAMES) + "\n", encoding="utf-8")
    return path


def test_what_is_stated_is_in_the_file_and_a_check_holds_the_checkpoint_against_it(
    vitc, foreign, labels, tmp_path
) -> None:
    out = tmp_path / "m.onnx"
    done = vitc("export", foreign, "--out", out, "--labels", labels, *STATED, "--weight-bits", 1)

    assert done.code == 0, done.err
    _, facts = load_onnx(out)
    assert facts.labels == NAMES
    assert facts.preprocessing["mean"] == [0.1, 0.2, 0.3]
    assert facts.preprocessing["std"] == [0.5, 0.5, 0.5]
    assert facts.preprocessing["resize"] == [40, 44]
    assert facts.preprocessing["interpolation"] == "nearest"
    assert "--scheme bibert is assumed" in done.err
    assert "assumed is the rest, --crop 32" in done.err
    assert "--weight-bits" not in done.err
    assert "--labels" not in done.err

    grey = np.full((50, 60, 3), 130, np.uint8)
    for name in NAMES:
        (tmp_path / "data" / name).mkdir(parents=True)
        Image.fromarray(grey).save(tmp_path / "data" / name / "x.png")
    read = vitc("check", out, "--reference", foreign, "--data", tmp_path / "data", "--json", "-")
    assert read.code == 0, read.err
    # The pictures went through the stated preprocessing, by which the file classifies them too.
    run = vitc("run", out, tmp_path / "data" / NAMES[0] / "x.png", "--json", "-")
    assert run.json["inputs"][0]["top"][0]["label"] in NAMES
    shown = load(foreign, stated=Stated(mean=(0.1, 0.2, 0.3), std=(0.5,) * 3, resize=(40, 44)))
    pixels = torch.from_numpy(shown.preprocessing.apply(Image.fromarray(grey)))[None]
    logit = run.json["inputs"][0]["top"][0]["logit"]
    assert logit == pytest.approx(float(shown(pixels).max()), abs=1e-3)


def test_averaged_weights_are_checked_as_they_were_exported(vitc, foreign, tmp_path) -> None:
    out = tmp_path / "m.onnx"
    assert vitc("export", foreign, "--out", out, "--ema").code == 0

    assert vitc("check", out, "--reference", foreign, "--ema", "--images", 1).code == 0
    assert vitc("check", out, "--reference", foreign, "--images", 1).code == 3


def test_what_a_checkpoint_of_vitc_states_is_not_said_to_be_assumed(vitc, built, tmp_path) -> None:
    done = vitc("export", built.checkpoint, "--out", tmp_path / "m.onnx", "--no-check")

    assert done.code == 0
    assert "assumed" not in done.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--labels", "names.txt"), "3 labels are stated, and .* has 10 classes"),
        (("--crop", "28"), "crops to 28 px but the network takes 32 px"),
        (("--crop", "48"), "crops to 48 px but the network takes 32 px"),
        (("--mean", "123.7,116.3,103.5", "--std", "58"), "pixels from 0 to 255"),
        (("--resize", "30"), "crop of 32 does not fit a shorter side of 30"),
        (("--std", "0"), "std must be positive"),
        (("--scheme", "recu2"), "no scheme 'recu2': did you mean recu"),
        (("--interpolation", "cubic"), "did you mean bicubic"),
    ],
)
def test_what_cannot_be_so_is_one_sentence(vitc, foreign, tmp_path, monkeypatch, options, words):
    (tmp_path / "names.txt").write_text("a\nb\nc\n")
    monkeypatch.chdir(tmp_path)
    done = vitc("export", foreign, "--out", "m.onnx", *options)

    assert done.code == 1
    assert re.search(words, done.err), done.err
    assert not (tmp_path / "m.onnx").exists()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("l.txt", "\ufeffa b\r\nc\r\n\n"),
        ("l.json", json.dumps(["a b", "c"])),
        ("config.json", json.dumps({"id2label": {"1": "c", "0": "a b"}, "x": 1})),
        ("index.json", json.dumps({"0": ["n01", "a b"], "1": ["n02", "c"]})),
    ],
)
def test_labels_are_read_in_the_forms_of_the_field(tmp_path, name, text) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")

    assert read_labels(tmp_path / name) == ("a b", "c")


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("l.txt", "", "names no class"),
        ("l.txt", "a\n\nb\n", "no name at line 2"),
        ("l.txt", "a\tb\n", "control character"),
        ("l.json", '{"0": "a", "2": "b"}', "no name for class 1"),
        ("l.json", '["a", 3]', "no name at class 1"),
        ("l.json", "[", "is no JSON"),
        ("l.json", "3", "no list of names"),
    ],
)
def test_labels_that_leave_a_class_unnamed_are_refused(tmp_path, name, text, words) -> None:
    (tmp_path / name).write_text(text)

    with pytest.raises(api.VitcError, match=words):
        read_labels(tmp_path / name)
