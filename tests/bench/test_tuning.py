from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from vitc.bench import tile_cache, tuning
from vitc.bench.measure import Latency
from vitc.bench.tile_cache import TileCache
from vitc.bench.tuning import TuneOptions, tune
from vitc.devices import LocalDevice, RunRequest
from vitc.errors import VitcError
from vitc.places import Cache
from vitc.runtime.artefact import Artefact
from vitc.targets.isa import ISAS
from vitc.targets.packing import ROW_PADDING
from vitc.targets.table import find
from vitc.targets.tiles import Tile, other_tiles

QUICK = TuneOptions(rounds=2, runs=1)


@pytest.fixture
def artefact(compiled, tmp_path: Path, monkeypatch) -> Path:
    """A copy of a native artefact, and an empty cache of tiles."""
    # Of tiles only: the linker's own would be filled for a minute.
    monkeypatch.setattr(tile_cache, "find_cache", lambda: Cache(tmp_path / "cache"))
    # Three tiles are enough to see the search at work.
    monkeypatch.setattr(tuning, "other_tiles", lambda isa: other_tiles(isa)[:2])
    shutil.copytree(compiled("native").path, tmp_path / "native")
    return tmp_path / "native"


def latency(milliseconds: float) -> Latency:
    return Latency(milliseconds, milliseconds, milliseconds, milliseconds)


@pytest.mark.parametrize("isa", ISAS.values(), ids=lambda isa: isa.name)
def test_tiles_to_try_fit_the_row_padding_and_leave_out_the_usual_one(isa):
    tiles = other_tiles(isa)
    assert tiles
    assert Tile.of(isa) not in tiles
    assert len(set(tiles)) == len(tiles)
    for tile in tiles:
        assert ROW_PADDING % tile.row_tile == 0
        assert Tile.from_dict(tile.to_dict()) == tile
        assert Tile.of(tile.apply(isa)) == tile


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"row_tile": 4, "lane_tile": 4, "float_rows": 6},
        {"row_tile": 3, "lane_tile": 4, "float_rows": 6, "float_tile": 4},
        {"row_tile": 4, "lane_tile": 0, "float_rows": 6, "float_tile": 4},
        {"row_tile": 4, "lane_tile": 4.0, "float_rows": 6, "float_tile": 4},
        {"row_tile": 4, "lane_tile": 4, "float_rows": 600, "float_tile": 4},
    ],
)
def test_a_tile_that_no_kernel_can_have_is_refused(values):
    with pytest.raises((TypeError, ValueError)):
        Tile.from_dict(values)


def test_a_faster_choice_takes_the_place_and_computes_the_same(artefact, monkeypatch):
    before = Artefact.open(artefact)
    shape = (3, *before.image_shape)
    image = np.random.default_rng(3).standard_normal(shape, dtype=np.float32)
    wanted = LocalDevice().run(before, image, RunRequest(trace=True))
    other = other_tiles(ISAS[before.target.isa])[0]
    monkeypatch.setattr(tuning._Search, "_best", staticmethod(lambda _, __: other))
    monkeypatch.setattr(tuning._Search, "race", lambda *_: [latency(2), latency(1)])
    report = tune(artefact, QUICK)
    assert report.replaced
    assert {choice.chosen for choice in report.kernels} == {other}
    after = Artefact.open(artefact)
    assert set(after.tiles.values()) == {other}
    assert after.manifest.check["equal"]
    found = LocalDevice().run(after, image, RunRequest(trace=True))
    for name, value in wanted.trace.items():
        if value.dtype == "uint8":
            assert (found.trace[name] == value).all(), name


def test_a_slower_choice_leaves_the_artefact_alone(artefact, monkeypatch):
    manifest = (artefact / "manifest.json").read_bytes()
    other = other_tiles(ISAS[find("native").isa])[0]
    monkeypatch.setattr(tuning._Search, "_best", staticmethod(lambda _, __: other))
    monkeypatch.setattr(tuning._Search, "race", lambda *_: [latency(1), latency(2)])
    report = tune(artefact, QUICK)
    assert not report.replaced
    assert (artefact / "manifest.json").read_bytes() == manifest
    assert [p.name for p in artefact.parent.iterdir() if p.name.startswith(".")] == []


def test_what_was_found_is_kept_by_processor_and_not_timed_again(artefact, monkeypatch):
    usual = Tile.of(ISAS[find("native").isa])
    monkeypatch.setattr(tuning._Search, "_best", staticmethod(lambda _, __: usual))
    first = tune(artefact, QUICK)
    assert all(choice.usual_ms > 0 for choice in first.kernels)
    assert first.before is None  # the table's tiles are what it was compiled with
    monkeypatch.setattr(tuning, "compile_model", None)
    second = tune(artefact, QUICK)
    assert all(choice.usual_ms is None for choice in second.kernels)
    assert [c.chosen for c in second.kernels] == [c.chosen for c in first.kernels]
    json.dumps(second.to_dict())


def test_a_tile_must_gain_one_percent():
    usual, other = Tile(4, 4, 6, 4), Tile(8, 2, 6, 4)
    assert tuning._Search._best({usual: 1.0, other: 0.995}, usual) == usual
    assert tuning._Search._best({usual: 1.0, other: 0.98}, usual) == other


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": 1}', '{"a": {"row_tile": 3}}'])
def test_a_cache_that_is_none_counts_as_empty(tmp_path, text):
    cache = TileCache(tmp_path / "tiles.json")
    assert cache.read() == {}
    cache.file.write_text(text)
    assert cache.read() == {}
    cache.write({"kernel": Tile(4, 4, 6, 4)})
    assert cache.read() == {"kernel": Tile(4, 4, 6, 4)}
    assert [path.name for path in tmp_path.iterdir()] == ["tiles.json"]


def test_processors_and_targets_have_caches_of_their_own():
    facts = {"architecture": "x86_64", "cpu": "one", "features": ["avx2"]}
    files = {
        TileCache.of(facts, find("x86")).file,
        TileCache.of(facts, find("x86-64-v2")).file,
        TileCache.of({**facts, "cpu": "another"}, find("x86")).file,
        TileCache.of({**facts, "features": []}, find("x86")).file,
    }
    assert len(files) == 4


def test_an_emulator_cannot_be_tuned_on(compiled):
    with pytest.raises(VitcError, match="emulated"):
        tune(compiled("arm").path, TuneOptions(device="qemu"))
