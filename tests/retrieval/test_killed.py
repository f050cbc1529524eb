"""A build that is killed loses nothing, and searches go on while an index is built."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.retrieval.towers import towers
from vitc.models.checkpoint import save
from vitc.retrieval.building import build_index
from vitc.retrieval.encoder import open_encoder
from vitc.retrieval.index_file import Index
from vitc.retrieval.querying import query

BUILD = """
import sys, time
from pathlib import Path
from vitc.retrieval import building
from vitc.retrieval.encoder import open_encoder
building._BATCH, building._SAVED_EVERY_S = 2, 0.0
def progress(done, _):
    print(done, flush=True)
    sys.stdin.readline() if sys.argv[4] == "wait" else time.sleep(float(sys.argv[4]))
building.build_index(Path(sys.argv[1]), open_encoder(sys.argv[2]), Path(sys.argv[3]),
                     progress=progress)
"""
LIMIT_S = 300


@pytest.fixture
def place(tmp_path) -> Path:
    (tmp_path / "photos").mkdir()
    save(towers("base", 3), tmp_path / "m.safetensors")
    photograph(tmp_path, range(12))
    return tmp_path


def photograph(place: Path, seeds) -> None:
    for seed in seeds:
        pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
        Image.fromarray(pixels).save(place / "photos" / f"{seed:02d}.png")


def begun(place: Path, pause: float | str) -> subprocess.Popen[str]:
    """A build in a process of its own, which pauses between batches, or waits for a line."""
    where = [place / "photos", place / "m.safetensors", place / "p.vidx", pause]
    command = [sys.executable, "-c", BUILD, *map(str, where)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_a_killed_build_loses_nothing_that_it_had_saved(place):
    encoder, out = open_encoder(place / "m.safetensors"), place / "p.vidx"
    photograph(place, range(4))
    for name in sorted((place / "photos").iterdir())[4:]:
        name.unlink()
    build_index(place / "photos", encoder, out)
    before = out.read_bytes()
    photograph(place, range(12))
    process = begun(place, 0.2)
    for line in process.stdout:
        if int(line) >= 6:
            break
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=LIMIT_S)
    assert out.read_bytes() == before, "the old index is whole"
    notes: list[str] = []
    done = build_index(place / "photos", encoder, out, note=notes.append)
    assert (done.images, done.removed) == (12, 0)
    # Six were told of, and the last two of them may not have been saved yet.
    assert any(f"going on with {count} photos" in note for note in notes for count in (4, 6, 8))
    build_index(place / "photos", encoder, place / "fresh.vidx")
    with Index.open(out) as one, Index.open(place / "fresh.vidx") as other:
        assert one.ids == other.ids
        assert np.array_equal(one.tokens(), other.tokens())


def test_searches_beside_builds_see_the_old_index_or_the_new_one(place):
    encoder, out = open_encoder(place / "m.safetensors"), place / "p.vidx"
    photograph(place, range(12))
    build_index(place / "photos", encoder, out)
    photograph(place, range(12, 20))
    process = begun(place, 0.05)
    seen = set()
    end = time.monotonic() + LIMIT_S
    while process.poll() is None and time.monotonic() < end:
        with Index.open(out, model=encoder.model) as index:
            answer = query(index, encoder, text="a red dog", like=None, count=50)
            assert len(answer.found) == index.images
        seen.add(answer.images)
    process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0
    with Index.open(out) as index:
        assert index.images == 20
    assert 12 in seen
    assert seen <= {12, 20}


def test_two_builds_of_one_index_are_one_after_the_other(place):
    photograph(place, range(12))
    first = begun(place, "wait")
    assert first.stdout.readline()
    second = begun(place, 0.0)
    second.communicate(timeout=LIMIT_S)
    assert second.returncode != 0, "another run is writing it"
    first.communicate("\n" * 20, timeout=LIMIT_S)
    assert first.returncode == 0
    with Index.open(place / "p.vidx") as index:
        assert index.images == 12
