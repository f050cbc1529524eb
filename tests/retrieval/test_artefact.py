"""A compiled pair of towers gives the bits of its checkpoint, and searches what it indexed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.retrieval.towers import towers
from vitc import api
from vitc.errors import VitcError
from vitc.models.checkpoint import load, save
from vitc.retrieval.encoder import Encoder, open_encoder


@pytest.fixture(scope="module", params=["base", "fast"])
def pair(request, tmp_path_factory) -> tuple[Encoder, Encoder]:
    folder: Path = tmp_path_factory.mktemp("towers")
    save(towers(request.param, 5), folder / "m.safetensors")
    quick = api.ExportOptions(check=False)
    api.export(load(folder / "m.safetensors"), folder / "m.onnx", quick)
    api.compile(folder / "m.onnx", folder / "m", api.CompileOptions(check=False))
    return open_encoder(folder / "m.safetensors"), open_encoder(folder / "m")


def test_vectors_of_the_artefact_are_those_of_the_checkpoint(pair):
    checkpoint, artefact = pair
    assert checkpoint.model == artefact.model
    assert checkpoint.config == artefact.config
    pixels = np.random.default_rng(6).integers(0, 256, (5, 32, 32, 3), np.uint8)
    assert np.array_equal(checkpoint.images(pixels), artefact.images(pixels))
    texts = ["a red dog", "a big blue snowman", "", "beach " * 20]
    assert np.array_equal(checkpoint.texts(texts), artefact.texts(texts))


def test_a_network_without_towers_is_refused(tmp_path):
    save(api.new("micro", depth=1), tmp_path / "m.safetensors")
    with pytest.raises(VitcError, match="no retrieval network but a sibivit"):
        open_encoder(tmp_path / "m.safetensors")
    save(towers("base", packed=False), tmp_path / "f.safetensors")
    with pytest.raises(VitcError, match="are floats"):
        open_encoder(tmp_path / "f.safetensors")
