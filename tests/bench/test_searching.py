"""Searches are timed only where they find what the definition finds."""

from __future__ import annotations

import json
from contextlib import contextmanager

import numpy as np
import pytest
from typer.testing import CliRunner

from vitc.bench import searching
from vitc.bench.searching import SearchBenchOptions, bench_searches
from vitc.cli.main import app
from vitc.errors import VitcError


def test_every_contender_is_timed_or_said_to_be_missing(tmp_path):
    facts = tmp_path / "t.json"
    sizes = ("--images", "9001", "--width", "64", "--batch", "5", "--top", "7", "--repeats", "1")
    done = CliRunner().invoke(app, ["retrieve", "bench", *sizes, "--json", str(facts)])
    assert done.exit_code == 0, done.output
    stated = json.loads(facts.read_text())
    assert stated["images"] == 9001
    times = {each["name"]: each for each in stated["times"]}
    assert list(times) == ["vitc", "numpy", "faiss IndexBinaryFlat", "usearch, exact"]
    for each in times.values():
        if each["note"]:
            assert "is not installed" in each["note"]
        else:
            for fastest, median in (each["single_ms"], each["batch_ms"]):
                assert 0 < fastest <= median
    assert not times["vitc"]["note"]
    assert not times["numpy"]["note"]


@pytest.mark.parametrize("images", [1000, 25_000])
def test_a_batch_finds_what_numpy_finds(tmp_path, images):
    options = SearchBenchOptions(images=images, width=64, batch=6, top=12)
    rng = np.random.default_rng(3)
    packed, queries = (
        rng.integers(0, 256, (count, options.width // 8), dtype=np.uint8)
        for count in (images, options.batch)
    )
    with searching._vitc(packed, options, tmp_path) as search:
        found = search(queries)
    assert np.array_equal(found, searching._of_numpy(packed, options)(queries))


def test_a_contender_that_finds_something_else_is_refused(monkeypatch):
    @contextmanager
    def wrong(images, options, _):
        yield lambda queries: searching._of_numpy(images, options)(queries) - 2

    monkeypatch.setattr(searching, "_CONTENDERS", [("wrong", (), wrong)])
    with pytest.raises(VitcError, match="wrong finds scores"):
        bench_searches(SearchBenchOptions(images=50, width=8, batch=2, top=3, repeats=1))


def test_numbers_that_cannot_be_are_refused():
    with pytest.raises(VitcError, match="top must be 1 or more"):
        SearchBenchOptions(top=0)
    with pytest.raises(VitcError, match="do not fill bytes"):
        SearchBenchOptions(width=12)
