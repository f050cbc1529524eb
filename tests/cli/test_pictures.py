"""What a picture file says about itself reaches the logits, or is refused by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

GREY = np.random.default_rng(5).integers(0, 256, (40, 40), dtype=np.uint8)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "two words"
    folder.mkdir()
    plain = Image.fromarray(GREY)
    plain.save(folder / "plain.png")
    Image.fromarray(GREY.astype(np.uint16) * 257).save(folder / "long.tif")
    exif = Image.Exif()
    exif[274] = 7
    plain.transpose(Image.Transpose.TRANSVERSE).save(folder / "turned.webp", exif=exif, lossless=1)
    white = Image.new("L", plain.size, 255)
    Image.merge("LA", [white, plain]).save(folder / "on_nothing.png")
    return folder


def test_one_picture_in_several_forms_has_one_result(vitc, built, pictures) -> None:
    names = ["plain.png", "long.tif", "turned.webp", "on_nothing.png"]
    out = pictures / "logits.npy"
    ran = vitc(
        "run",
        *(built.artefact, *(pictures / name for name in names)),
        *("--background", "black", "--out", out),
    )
    assert ran.code == 0, ran.err
    logits = np.load(out)
    np.testing.assert_array_equal(logits, np.repeat(logits[:1], len(names), axis=0))


def test_pictures_without_a_result_are_named(vitc, built, pictures) -> None:
    ran = vitc("run", built.artefact, pictures / "on_nothing.png")
    assert ran.code == 1
    assert "on_nothing.png is one flat colour on the background 255,255,255" in ran.err
    assert "--background black" in ran.err
    Image.fromarray(GREY.astype(np.float32)).save(pictures / "float.tif")
    ran = vitc("run", built.artefact, pictures / "float.tif")
    assert ran.code == 1
    assert "float.tif has 32-bit floating point pixels" in ran.err


def test_a_background_reaches_check_and_is_refused_without_pictures(vitc, built, pictures) -> None:
    arguments = ("check", built.onnx, "--reference", built.checkpoint, "--images", 1)
    refused = vitc(*arguments, "--data", pictures)
    assert refused.code == 1
    assert "one flat colour" in refused.err
    assert vitc(*arguments, "--data", pictures, "--background", "0,0,0").code == 0
    for data in ((), ("--data", "digits")):
        without = vitc(*arguments, *data, "--background", "black")
        assert without.code == 1
        assert "A background is for pictures" in without.err
    assert "no colour" in vitc(*arguments, "--data", pictures, "--background", "blak").err
