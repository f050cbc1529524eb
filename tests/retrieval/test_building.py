"""An index of photos is brought up to date, goes on where it stopped, and is searched."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.retrieval.towers import towers
from vitc.cli.main import app
from vitc.errors import VitcError
from vitc.models.checkpoint import save
from vitc.models.retrieval.scores import sign_interaction
from vitc.retrieval.building import build_index
from vitc.retrieval.encoder import open_encoder
from vitc.retrieval.index_file import Index
from vitc.retrieval.querying import query


def photo(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    Image.fromarray(pixels).resize((64, 48)).save(path)


@pytest.fixture
def photos(tmp_path) -> Path:
    folder = tmp_path / "my photos"
    for seed, name in enumerate(["a.png", "below/b.png", "below/ü <b>.png", "d.png"]):
        photo(folder / name, seed)
    (folder / "broken.png").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("left")
    return folder


@pytest.fixture(params=["base", "fast"])
def model(request, tmp_path) -> Path:
    save(towers(request.param, 3), tmp_path / "m.safetensors")
    return tmp_path / "m.safetensors"


def test_an_index_is_brought_up_to_date(photos, model, tmp_path):
    encoder, out, notes = open_encoder(model), tmp_path / "p.vidx", []
    done = build_index(photos, encoder, out, note=notes.append)
    assert (done.images, done.added, done.kept, done.removed) == (4, 4, 0, 0)
    assert list(done.broken) == ["broken.png"]
    assert any("1 .txt" in note for note in notes)
    before = out.read_bytes()
    again = build_index(photos, encoder, out)
    assert (again.added, again.kept) == (0, 4)
    assert out.read_bytes() == before
    (photos / "a.png").unlink()
    photo(photos / "new.png", 9)
    photo(photos / "d.png", 10)
    os.utime(photos / "d.png", ns=(1, 1))
    changed = build_index(photos, encoder, out)
    assert (changed.images, changed.added, changed.kept, changed.removed) == (4, 2, 2, 1)
    with Index.open(out) as index:
        assert index.ids == ("below/b.png", "below/ü <b>.png", "d.png", "new.png")
        rows = [encoder.images(encoder.preprocessing.read(photos / n)[None])[0] for n in index.ids]
        assert np.array_equal(index.tokens(), np.stack(rows))
    assert not (tmp_path / "p.vidx.part").exists()


def test_an_interrupted_build_goes_on(photos, model, tmp_path, monkeypatch):
    encoder, out = open_encoder(model), tmp_path / "p.vidx"
    monkeypatch.setattr("vitc.retrieval.building._BATCH", 2)
    monkeypatch.setattr("vitc.retrieval.building._SAVED_EVERY_S", 0.0)

    def stop(done: int, _: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_index(photos, encoder, out, progress=stop)
    assert not out.exists()
    notes: list[str] = []
    done = build_index(photos, encoder, out, note=notes.append)
    assert any("going on with 2 photos" in note for note in notes)
    assert done.images == 4
    fresh = build_index(photos, encoder, tmp_path / "q.vidx")
    assert fresh.images == 4
    assert out.read_bytes() == (tmp_path / "q.vidx").read_bytes()


def test_an_index_of_another_model_is_refused_and_stays(photos, model, tmp_path):
    out = tmp_path / "p.vidx"
    build_index(photos, open_encoder(model), out)
    before = out.read_bytes()
    save(towers("base", 4), tmp_path / "n.safetensors")
    other = open_encoder(tmp_path / "n.safetensors")
    with pytest.raises(VitcError, match="another model"):
        build_index(photos, other, out)
    assert out.read_bytes() == before
    assert build_index(photos, other, out, force=True).added == 4
    (tmp_path / "f.vidx").write_text("no index")
    with pytest.raises(VitcError, match="no index"):
        build_index(photos, other, tmp_path / "f.vidx")
    assert (tmp_path / "f.vidx").read_text() == "no index"


def test_a_search_ranks_all_photos_as_the_towers_score_them(photos, model, tmp_path):
    encoder, out = open_encoder(model), tmp_path / "p.vidx"
    build_index(photos, encoder, out)
    with Index.open(out) as index:
        answer = query(index, encoder, text="a red dog", like=None, count=3)
        bits = np.unpackbits(index.tokens(), axis=-1, count=40, bitorder="little")
        text = np.unpackbits(encoder.texts(["a red dog"]), axis=-1, count=40, bitorder="little")
        import torch

        scores = sign_interaction(torch.from_numpy(bits), torch.from_numpy(text))[:, 0].numpy()
        order = np.argsort(-scores, kind="stable")[:3]
        assert [found.name for found in answer.found] == [index.ids[i] for i in order]
        assert [found.score for found in answer.found] == scores[order].tolist()
        like = query(index, encoder, text=None, like=photos / "d.png", count=1)
        assert like.found[0].name == "d.png"
        assert like.found[0].score == -like.least


def vitc(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return done.exit_code, done.output


def test_the_commands_build_and_search(photos, model, tmp_path):
    out, page, facts = tmp_path / "p.vidx", tmp_path / "p.html", tmp_path / "f.json"
    code, said = vitc("index", "build", photos, "--model", model, "--out", out)
    assert code == 0, said
    assert "4 photos" in said
    asked = ("search", out, "<script>alert(1)</script>", "--top", 2)
    code, said = vitc(*asked, "--html", page, "--json", facts)
    assert code == 0, said
    found = json.loads(facts.read_text())
    assert found["images"] == 4
    assert len(found["found"]) == 2
    assert {"encode_ms", "search_ms", "photos"} <= found.keys()
    text = page.read_text()
    assert text.count("data:image/jpeg;base64,") == 2
    assert "<script>" not in text
    assert "<b>.png" not in text
    code, said = vitc("search", out, "--like", photos / "a.png", "--top", 1)
    assert code == 0, said
    assert "a.png" in said
    assert vitc("search", out)[0] == 2
    model.rename(tmp_path / "gone.safetensors")
    with pytest.raises(VitcError, match="was built with is not at"):
        CliRunner().invoke(app, ["search", str(out), "dog"], catch_exceptions=False)
