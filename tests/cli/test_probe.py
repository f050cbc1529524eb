"""`vitc probe` from the command line."""

from __future__ import annotations

import json

import pytest
import torch

from vitc.models import PRESETS, build_network, random_model, save
from vitc.models.architectures import twin_preset


@pytest.fixture
def twin(tmp_path):
    torch.manual_seed(1)
    chosen = twin_preset("micro")
    save(build_network(chosen.config, chosen.preprocessing), tmp_path / "twin.safetensors")
    return tmp_path / "twin.safetensors"


def test_both_probes_of_the_digits_are_shown_and_written(vitc, twin, tmp_path) -> None:
    ran = vitc("probe", twin, "--epochs", "5", "--json", tmp_path / "p.json")
    assert ran.code == 0, ran.err
    document = json.loads((tmp_path / "p.json").read_text())
    assert document["options"]["checkpoint"] == str(twin)
    # Of ten classes; random features tell some of them.
    assert 0.3 < document["linear"]["accuracy"] <= 1
    assert 0.3 < document["knn"]["accuracy"] <= 1
    assert document["linear"]["train_images"] + document["linear"]["test_images"] == 1797
    assert f"test accuracy {document['linear']['accuracy']:.2%}" in ran.out
    assert f"test accuracy {document['knn']['accuracy']:.2%}" in ran.out


def test_one_probe_is_done_alone(vitc, twin) -> None:
    ran = vitc("probe", twin, "--knn", "--neighbours", "5", "--json", "-")
    assert ran.code == 0, ran.err
    document = json.loads(ran.out)
    assert document["linear"] is None
    assert document["knn"]["neighbours"] == 5


def test_a_binarized_network_is_refused(vitc, tmp_path) -> None:
    save(random_model(PRESETS["micro"].config), tmp_path / "m.safetensors")
    ran = vitc("probe", tmp_path / "m.safetensors")
    assert ran.code == 1
    assert "wanted a full-precision network" in ran.err


def test_a_folder_of_masks_is_no_folder_of_classes(vitc, twin, tmp_path) -> None:
    ran = vitc("probe", twin, "--data", tmp_path, "--linear")
    assert ran.code == 1
    assert "class folders" in ran.err
