"""Damaged files that C reads, under AddressSanitizer and UndefinedBehaviorSanitizer.

The runner refuses any input with one sentence. Its loader refuses a library whose headers or tables
are damaged, or maps it; what damaged code does once it is called, no loader can know.
"""

from __future__ import annotations

import importlib.util
import io
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given

from tests.absent import unrandomised
from vitc.compiler.link import RUNNER_SOURCES


def _beside(name: str):
    path = Path(__file__).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(f"fuzz_{name}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


edits, shared = _beside("edits"), _beside("conftest")


def run(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*unrandomised(), *(str(part) for part in command)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        errors="replace",
        # What a program that ends at once leaves allocated is no fault.
        env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"},
    )


@pytest.fixture(scope="session")
def runner(sanitized) -> Path:
    return sanitized("vitc-run", *(shared.RUNTIME / name for name in RUNNER_SOURCES))


@pytest.fixture(scope="session")
def opener(sanitized) -> Path:
    here = Path(__file__).with_name("open_library.c")
    return sanitized("open_library", here, shared.RUNTIME / "vitc_loader.c")


@pytest.fixture(scope="session")
def npy() -> bytes:
    file = io.BytesIO()
    np.save(file, np.zeros((2, 3, 4, 4), np.float32))
    return file.getvalue()


def test_the_sanitized_runner_runs_whole_files(runner, artefact, npy, tmp_path):
    (tmp_path / "x.npy").write_bytes(npy)
    done = run(runner, tmp_path / "x.npy", tmp_path / "y.npy", "--library", artefact.library)
    assert done.returncode == 0, done.stderr
    assert np.array_equal(np.load(tmp_path / "y.npy"), artefact(np.zeros((2, 3, 4, 4), np.float32)))


@shared.examples(100)
@given(edits.edits())
def test_an_input_of_the_runner(runner, artefact, npy, tmp_path, changes):
    (tmp_path / "x.npy").write_bytes(edits.damaged(npy, changes))
    (tmp_path / "y.npy").unlink(missing_ok=True)
    done = run(runner, tmp_path / "x.npy", tmp_path / "y.npy", "--library", artefact.library)
    assert done.returncode in (0, 1), done.stderr
    if done.returncode:
        assert done.stderr.startswith("vitc-run: ")
        assert done.stderr.count("\n") == 1
        assert not (tmp_path / "y.npy").exists()


def test_the_loader_maps_the_whole_library(opener, artefact):
    assert run(opener, artefact.library).stdout == "whole\n"


def test_a_name_that_cannot_be_printed_is_not_printed(opener, artefact, tmp_path):
    # Found by fuzzing: names of a damaged library went to the terminal as they were.
    library = tmp_path / "x.so"
    library.write_bytes(artefact.library.read_bytes().replace(b"\0strcmp\0", b"\0\x1btrcmp\0"))
    said = run(opener, library).stdout
    assert said == f"{library}: the name of a function it needs is damaged\n"


@pytest.mark.parametrize("field", [16, 32], ids=["address", "bytes in the file"])
def test_segments_that_overlap_or_are_empty_are_never_read_through(
    opener, artefact, tmp_path, field
):
    # Found by fuzzing: tables were looked for in a segment over which nothing was mapped.
    whole = artefact.library.read_bytes()
    (start,) = struct.unpack_from("<Q", whole, 32)
    (count,) = struct.unpack_from("<H", whole, 56)
    files = []
    for number in range(count):
        for value in (0, 1, 4096):
            data = bytearray(whole)
            struct.pack_into("<Q", data, start + 56 * number + field, value)
            files.append(tmp_path / f"{number}-{value}.so")
            files[-1].write_bytes(data)
    done = run(opener, *files)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == len(files)


def regions(data: bytes) -> list[tuple[int, int]]:
    """Where the headers and the tables that the loader reads lie in a library."""
    (start,) = struct.unpack_from("<Q", data, 32)
    (count,) = struct.unpack_from("<H", data, 56)
    found = [(0, 64), (start, start + 56 * count)]
    segments = [struct.unpack_from("<IIQQQQQQ", data, start + 56 * i) for i in range(count)]
    loads = [(s[3], s[2], s[5]) for s in segments if s[0] == 1]
    dynamic = next((s[2], s[2] + s[5]) for s in segments if s[0] == 2)
    found.append(dynamic)
    entries = dict(
        struct.unpack_from("<QQ", data, at) for at in range(dynamic[0], dynamic[1] - 15, 16)
    )

    def place(address: int) -> int:
        return next(o + address - v for v, o, size in loads if v <= address < v + size)

    for table, size in ((5, entries[10]), (7, entries[8]), (23, entries[2]), (6, 24 * 8), (4, 64)):
        if table in entries:
            found.append((place(entries[table]), place(entries[table]) + size))
    return found


@pytest.fixture(scope="session")
def tables(artefact) -> list[tuple[int, int]]:
    return regions(artefact.library.read_bytes())


@shared.examples(120)
@given(edits.edits(3))
def test_headers_and_tables_of_a_library(opener, artefact, tables, tmp_path, changes):
    whole = artefact.library.read_bytes()
    files = []
    for number, (first, last) in enumerate(tables):
        # Sizes stay, so that only the table is damaged.
        kept = [c for c in changes if c.kind in ("flip", "set")] or [
            edits.Edit(changes[0].where, "set", changes[0].data, 1)
        ]
        table = edits.damaged(whole[first:last], kept)[: last - first]
        data = whole[:first] + table + whole[last:]
        files.append(tmp_path / f"{number}.so")
        files[-1].write_bytes(data)
    done = run(opener, *files)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == len(files)
