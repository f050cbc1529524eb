from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vitc.errors import VitcError
from vitc.models import PRESETS, Preprocessing, SIBiViT, config_from_dict, preset


@pytest.mark.parametrize(
    ("name", "si", "ratio", "millions"),
    [
        ("deit-tiny", False, 2, 3.98),
        ("deit-tiny", True, 2, 4.93),
        ("deit-tiny", True, 4, 6.71),
        ("deit-small", False, 2, 15.01),
        ("deit-small", True, 2, 15.98),
        ("deit-base", False, 2, 58.31),
        ("deit-base", True, 4, 87.65),
    ],
)
def test_presets_have_the_published_number_of_parameters(
    name: str, si: bool, ratio: int, millions: float
) -> None:
    with torch.device("meta"):
        model = SIBiViT(preset(name).config.replace(si=si, mlp_ratio=ratio))
    count = sum(p.numel() for p in model.parameters())
    assert count / 1e6 == pytest.approx(millions, abs=0.02)


@pytest.mark.parametrize("name", list(PRESETS))
def test_configuration_and_preprocessing_survive_json(name: str) -> None:
    entry = preset(name)
    config = config_from_dict(json.loads(json.dumps(entry.config.to_dict())))
    preprocessing = Preprocessing.from_dict(json.loads(json.dumps(entry.preprocessing.to_dict())))
    assert (config, preprocessing) == (entry.config, entry.preprocessing)


def test_micro_has_17_tokens_and_heads_of_32() -> None:
    config = preset("micro").config
    assert (config.tokens, config.head_width, config.mlp_ratio) == (17, 32, 2)


def test_si_hidden_follows_the_tokens_when_the_image_size_changes() -> None:
    config = preset("micro").config.replace(image_size=48)
    assert (config.tokens, config.si_hidden) == (37, 37)
    assert config.replace(si=False).si_hidden == 0


def test_unknown_preset_lists_the_known_ones() -> None:
    with pytest.raises(VitcError, match="deit-tiny, deit-small, deit-base, micro"):
        preset("deit-huge")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": 33}, "multiple of the patch size"),
        ({"heads": 5}, "multiple of 5 heads"),
        ({"depth": 0}, "depth must be a positive integer"),
        ({"classes": True}, "classes must be a positive integer"),
        ({"si_hidden": 0}, "SI needs a positive hidden"),
        ({"si": False}, "no SI needs 0"),
        ({"arch": "beit"}, "beit"),
        ({"weight_bits": 2}, "weight_bits"),
        ({"bn_eps": 0.0}, "bn_eps"),
        ({"colour": 1}, "unknown colour"),
    ],
)
def test_contradictory_configuration_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(VitcError, match=message):
        config_from_dict({**preset("micro").config.to_dict(), **change})


@pytest.mark.parametrize(
    "change",
    [{"crop": 300}, {"interpolation": "sinc"}, {"std": (1.0, 0.0, 1.0)}, {"mean": (0.5,)}],
)
def test_impossible_preprocessing_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(VitcError):
        dataclasses.replace(Preprocessing(), **change)


def picture(width: int, height: int, mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "CMYK", "1"])
@pytest.mark.parametrize("size", [(51, 40), (40, 51), (32, 32), (9, 200)])
def test_every_image_becomes_three_normalised_planes(mode: str, size: tuple[int, int]) -> None:
    got = Preprocessing(resize=37, crop=32).apply(picture(*size, mode))
    assert got.shape == (3, 32, 32)
    assert got.dtype == np.float32
    assert np.isfinite(got).all()


def test_grey_images_get_three_equal_planes_before_normalising() -> None:
    flat = Preprocessing(resize=37, crop=32, mean=(0, 0, 0), std=(1, 1, 1))
    got = flat.apply(picture(64, 48, "L"))
    np.testing.assert_array_equal(got[0], got[1])
    np.testing.assert_array_equal(got[0], got[2])
    assert got.std() > 0.1


def test_pixels_are_scaled_cropped_at_the_centre_and_normalised() -> None:
    image = picture(50, 36)
    preprocessing = Preprocessing(resize=36, crop=32, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 2.0))
    centre = np.asarray(image)[2:34, 9:41].astype(np.float64) / 255
    wanted = (centre - [0.1, 0.2, 0.3]) / [0.5, 0.25, 2.0]
    np.testing.assert_allclose(
        preprocessing.apply(image), wanted.transpose(2, 0, 1), rtol=0, atol=1e-6
    )


def test_shorter_side_is_resized_bicubic() -> None:
    image = picture(101, 77)
    wanted = image.resize((int(40 * 101 / 77), 40), Image.Resampling.BICUBIC)
    got = Preprocessing(resize=40, crop=40).crop_centre(image)
    left = round((wanted.width - 40) / 2)
    np.testing.assert_array_equal(np.asarray(got), np.asarray(wanted)[:, left : left + 40])


def test_default_preprocessing_is_the_deit_evaluation() -> None:
    assert Preprocessing.for_image_size(224) == Preprocessing()
