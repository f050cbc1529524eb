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

KINDS = {
    "base": ("base", "micro", 0),
    "inflate": ("inflate", "micro", 3),
    "fast": ("fast", "micro", 0),
    "swin, base": ("base", "micro-swin", 0),
    "pvt, base": ("base", "micro-pvt", 0),
    "nest, fast": ("fast", "micro-nest", 0),
}


@pytest.fixture(scope="module", params=KINDS.values(), ids=KINDS)
def made(request, tmp_path_factory) -> Path:
    """Folder of towers and what they were exported to."""
    folder: Path = tmp_path_factory.mktemp("towers")
    mode, on, codes = request.param
    save(towers(mode, 5, on=on, codes=codes), folder / "m.safetensors")
    quick = api.ExportOptions(check=False)
    api.export(load(folder / "m.safetensors"), folder / "m.onnx", quick)
    return folder


@pytest.fixture(scope="module")
def pair(made) -> tuple[Encoder, Encoder]:
    api.compile(made / "m.onnx", made / "m", api.CompileOptions(check=False))
    return open_encoder(made / "m.safetensors"), open_encoder(made / "m")


def test_towers_of_every_mode_are_their_file_on_arm(made, tmp_path, need_emulator):
    need_emulator("aarch64")
    artefact = api.compile(made / "m.onnx", tmp_path / "m", api.CompileOptions(target="arm"))
    checked = artefact.manifest.check
    assert isinstance(checked, dict), checked
    assert checked["device"] == "qemu"
    assert checked["equal"]


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
