"""`vitc pretrain` from the command line."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "two words"
    folder.mkdir()
    random = np.random.default_rng(3)
    for index in range(7):
        pixels = random.integers(0, 255, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return folder


def test_a_folder_of_photos_becomes_a_twin_that_can_be_probed(vitc, photos, tmp_path) -> None:
    out = tmp_path / "t.safetensors"
    ran = vitc(
        *("pretrain", "--data", photos, "--depth", 1, "--epochs", 2, "--batch-size", 4),
        *("--masking", "random", "--target", "pixels", "--out", out, "--json", tmp_path / "j.json"),
    )
    assert ran.code == 0, ran.err
    line = r"^epoch (\d)/2: invisible \d.*, visible \d.*, ETE (\d) of 4, \d+ images/s, .* s$"
    assert re.findall(line, ran.err, re.M) == [("1", "2"), ("2", "4")]
    document = json.loads((tmp_path / "j.json").read_text())
    assert document["effective_epochs"] == 4
    assert document["images"] == 7
    assert set(document["parts"]) == {"invisible", "visible"}
    assert "4 effective" in ran.out
    probed = vitc("probe", out, "--knn")
    assert probed.code == 0, probed.err


def test_a_slip_in_a_name_is_answered_with_the_nearest(vitc, photos, tmp_path) -> None:
    for option, slip, meant in (
        ("--method", "dmdj", "dmjd"),
        ("--masking", "blocks", "block"),
        ("--target", "pixel", "pixels"),
        ("--preset", "micr", "micro"),
    ):
        ran = vitc("pretrain", "--data", photos, "--out", tmp_path / "t.safetensors", option, slip)
        assert ran.code == 1
        assert f"did you mean {meant}?" in ran.err
