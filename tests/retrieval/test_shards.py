"""An index in parts gives the list of the whole; another index orders the best again."""

from __future__ import annotations

import json
from pathlib import Path

import joblib
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.retrieval.test_scan import bits, index_of
from tests.retrieval.towers import towers
from vitc.cli.main import app
from vitc.dialect.packing import pack_bits
from vitc.errors import VitcError
from vitc.models.checkpoint import save
from vitc.retrieval.building import build_index
from vitc.retrieval.encoder import open_encoder
from vitc.retrieval.index_file import Index
from vitc.retrieval.querying import Answer, query
from vitc.retrieval.ranking import Ranking, ranked_again
from vitc.retrieval.scan import Found, find, interactions
from vitc.retrieval.shards import merged, search_shards, shards_of, split_index

MODEL = "00" * 32


@pytest.mark.parametrize("tokens", [1, 3])
def test_parts_that_several_processes_search_give_the_list_of_the_whole(tmp_path, tokens):
    images, words = bits(1, 50, tokens, 20), bits(2, 2, 20)
    asked = pack_bits(words)
    with index_of(tmp_path / "p.vidx", images) as index:
        parts = split_index(index, tmp_path / "parts", 7)
        wanted = find(index, asked, 12)
        ids = index.ids
    assert [part.name for part in parts] == [f"{i:04d}.vidx" for i in range(7)]
    joined = []
    for part in parts:
        with Index.open(part) as opened:
            joined += opened.ids
    assert tuple(joined) == ids
    with joblib.parallel_config(backend="loky", n_jobs=3):
        assert search_shards(parts, MODEL, asked, 12) == wanted
    assert search_shards(parts, MODEL, asked, 12, jobs=1) == wanted
    # Signs of 20 bits: equal scores stand in several parts.
    assert len({found.score for found in wanted}) < len(wanted)


def test_lists_are_merged_by_score_and_equal_ones_stand_as_in_the_whole():
    first = [Found(2, "c", 9), Found(0, "a", 4)]
    second = [Found(1, "e", 9), Found(0, "d", 5)]
    assert merged([(3, first), (2, second)], 3) == [
        Found(2, "c", 9),
        Found(4, "e", 9),
        Found(3, "d", 5),
    ]


def test_parts_of_another_model_or_with_one_missing_are_one_sentence(tmp_path):
    with index_of(tmp_path / "p.vidx", bits(3, 6, 1, 20)) as index:
        with pytest.raises(VitcError, match="6 images, and 7 parts"):
            split_index(index, tmp_path / "parts", 7)
        parts = split_index(index, tmp_path / "parts", 3)
    with pytest.raises(VitcError, match="another model"):
        search_shards(parts, "11" * 32, pack_bits(bits(4, 1, 20)), 2, jobs=2)
    parts[2].unlink()
    with pytest.raises(VitcError, match=r"lacks 0002\.vidx"):
        shards_of(tmp_path / "parts")
    (tmp_path / "parts" / "parts.json").write_text("[]")
    with pytest.raises(VitcError, match="holds no parts"):
        shards_of(tmp_path / "parts")


def test_the_best_of_a_scan_are_ordered_by_another_index(tmp_path):
    few, many, words = bits(5, 30, 1, 20), bits(6, 30, 4, 24), bits(7, 3, 24)
    order = np.random.default_rng(8).permutation(30)
    with index_of(tmp_path / "f.vidx", few) as fast:
        scanned = find(fast, pack_bits(bits(9, 1, 20)), 11)
    with index_of(tmp_path / "b.vidx", many[order]) as base:
        base._ids = tuple(f"{i}.jpg" for i in order)  # other photos at other places
        found = ranked_again(scanned, base, pack_bits(words), 5)
    scores = interactions(pack_bits(words), pack_bits(many), 24)
    best = sorted((each.index for each in scanned), key=lambda i: (-scores[i], i))[:5]
    assert [(each.index, each.name, each.score) for each in found] == [
        (i, f"{i}.jpg", scores[i]) for i in best
    ]
    with index_of(tmp_path / "s.vidx", many[:3]) as short, pytest.raises(VitcError, match="lacks"):
        ranked_again(scanned, short, pack_bits(words), 5)


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A folder of photos with an index of fast towers and one of base towers."""
    place = tmp_path_factory.mktemp("two")
    (place / "photos").mkdir()
    for seed in range(9):
        pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
        Image.fromarray(pixels).resize((64, 48)).save(place / "photos" / f"{seed}.png")
    for mode in ("fast", "base"):
        save(towers(mode, 3), place / f"{mode}.safetensors")
        encoder = open_encoder(place / f"{mode}.safetensors")
        build_index(place / "photos", encoder, place / f"{mode}.vidx")
    return place


def vitc(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    return done.output


def test_the_commands_rank_by_another_index_and_search_parts(built, tmp_path):
    fast, base = built / "fast.vidx", built / "base.vidx"

    def found_by(number: int, place: Path, *options: object) -> list[tuple[str, int]]:
        facts = tmp_path / f"{number}.json"
        vitc("search", place, "a red dog", "--json", facts, *options)
        stated = json.loads(facts.read_text())
        assert stated["images"] == 9
        return [(found["id"], found["score"]) for found in stated["found"]]

    def names(answer: Answer) -> list[tuple[str, int]]:
        return [(found.name, found.score) for found in answer.found]

    encoders = [open_encoder(built / f"{mode}.safetensors") for mode in ("fast", "base")]
    with Index.open(fast) as scanned, Index.open(base) as tokens:
        ranking = Ranking(tokens, encoders[1], 6)
        asked = {"text": "a red dog", "like": None}
        wanted = query(scanned, encoders[0], **asked, count=4, by=ranking)
        whole = query(scanned, encoders[0], **asked, count=9)
        everything = query(tokens, encoders[1], **asked, count=9)
        with pytest.raises(VitcError, match="only the best 6 are ranked"):
            query(scanned, encoders[0], **asked, count=7, by=ranking)
    assert {found.name for found in wanted.found} <= {found.name for found in whole.found[:6]}
    of_all = {found.name: found.score for found in everything.found}
    assert [found.score for found in wanted.found] == sorted(
        (of_all[found.name] for found in whole.found[:6]), reverse=True
    )[:4]
    options = ("--rank-by", base, "--ranked", 6, "--top", 4)
    assert found_by(0, fast, *options) == names(wanted)
    assert found_by(1, base, "--ranked", 9, "--top", 9) == names(everything)
    vitc("index", "split", fast, "--parts", 4, "--out", tmp_path / "parts")
    assert found_by(2, tmp_path / "parts", "--jobs", 2) == names(whole)


def test_an_index_is_called_as_its_photos_and_says_what_comes_next(built, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my photos").symlink_to(built / "photos")
    said = vitc("index", "build", "my photos", "--model", built / "fast.safetensors")
    assert "next: vitc search photos.vidx WORDS" in said
    said = vitc("index", "split", "photos.vidx", "--parts", 3)
    assert "next: vitc search photos-parts WORDS" in said
    vitc("search", "photos-parts", "a red dog")
