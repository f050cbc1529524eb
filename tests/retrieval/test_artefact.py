"""A compiled pair of towers gives the bits of its checkpoint, and searches what it indexed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.retrieval.towers import towers
from vitc import api
from vitc.errors import VitcError
from vitc.models.checkpoint import load, save
from vitc.retrieval.building import build_index
from vitc.retrieval.encoder import Encoder, open_encoder
from vitc.retrieval.index_file import Index
from vitc.retrieval.querying import query, query_shards
from vitc.retrieval.shards import split_index

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


@pytest.mark.parametrize("asked", [{"text": "a red dog", "like": None}, {"text": None}])
def test_a_search_by_the_artefact_finds_what_one_by_the_checkpoint_finds(pair, tmp_path, asked):
    checkpoint, artefact = pair
    for seed in range(12):
        pixels = np.random.default_rng(seed % 7).integers(0, 256, (6, 8, 3), np.uint8)
        Image.fromarray(pixels).resize((40, 32)).save(tmp_path / f"{seed}.png")
    build_index(tmp_path, artefact, tmp_path / "p.vidx")
    asked = {"like": tmp_path / "3.png", **asked}
    with Index.open(tmp_path / "p.vidx") as index:
        wanted = query(index, checkpoint, count=8, **asked).found
        again = query(index, checkpoint, count=3, ranked=5, **asked).found
        assert query(index, artefact, count=3, ranked=5, **asked).found == again
        assert query(index, artefact, count=8, **asked).found == wanted
        parts = split_index(index, tmp_path / "parts", 3)
        if asked["text"]:
            assert artefact.scans is not None
            vectors = artefact.texts([asked["text"]])[0]
            assert artefact.scans.best(index, vectors, index.facts.tokens, 8) is not None
            assert artefact.scans.best(index, vectors[:1], 1, 8) is not None
    assert query_shards(parts, artefact, count=8, jobs=1, **asked).found == wanted
    assert len({each.score for each in wanted}) < len(wanted)  # photos that are there twice


def test_a_network_without_towers_is_refused(tmp_path):
    save(api.new("micro", depth=1), tmp_path / "m.safetensors")
    with pytest.raises(VitcError, match="no retrieval network but a sibivit"):
        open_encoder(tmp_path / "m.safetensors")
    save(towers("base", packed=False), tmp_path / "f.safetensors")
    with pytest.raises(VitcError, match="are floats"):
        open_encoder(tmp_path / "f.safetensors")
