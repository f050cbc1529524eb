"""Commands that take a checkpoint take a folder of the Hugging Face Hub."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import vitc as package


@pytest.fixture
def folder(built, tmp_path) -> Path:
    package.save_pretrained(package.load(built.checkpoint), tmp_path / "cats")
    return tmp_path / "cats"


def test_a_folder_is_exported_and_checked_like_its_checkpoint(
    vitc, built, folder, tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    exported = vitc("export", folder, "--no-check")
    checked = vitc("check", "cats.onnx", "--reference", folder)

    assert exported.code == checked.code == 0, exported.err + checked.err
    assert "next: vitc compile cats.onnx" in exported.err
    one, other = (package.inspect(path) for path in ("cats.onnx", built.onnx))
    assert one.account == other.account


def test_a_folder_is_inspected_as_a_checkpoint(vitc, built, folder) -> None:
    found = json.loads(vitc("inspect", folder, "--json", "-").out)
    other = json.loads(vitc("inspect", built.checkpoint, "--json", "-").out)

    assert found["kind"] == "checkpoint"
    assert found["config"] == other["config"]
    assert list(found["files"]) == ["model.safetensors"]


def test_training_starts_from_a_folder(vitc, folder, tmp_path) -> None:
    outcome = vitc(
        "train", "--depth", 1, "--epochs", 1, "--start", folder, "--out", tmp_path / "m.safetensors"
    )

    assert outcome.code == 0, outcome.err
    assert (tmp_path / "m.safetensors").is_file()


def test_a_folder_of_nothing_is_a_sentence(vitc, tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    outcome = vitc("export", tmp_path / "empty", "--out", tmp_path / "m.onnx")

    assert outcome.code == 1
    assert "has no model.safetensors" in outcome.err
    assert "save_pretrained" in outcome.err
