"""vitc-run: what it prints, and that bad input is one sentence and no output file."""

from __future__ import annotations

import json
import os
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from vitc import runtime


def run(artefact, *arguments):
    return subprocess.run(
        [artefact.runner, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


@pytest.fixture
def source(images, tmp_path):
    np.save(tmp_path / "x.npy", images)
    return tmp_path / "x.npy"


def test_it_prints_one_latency_for_every_batch_and_repeat(original, source, images, tmp_path):
    done = run(
        original,
        source,
        tmp_path / "y.npy",
        "--repeat",
        4,
        "--warmup",
        2,
        "--threads",
        2,
        "--profile",
    )
    report = json.loads(done.stdout)
    # Three images in batches of two are two runs.
    assert len(report["latency_ns"]) == 2 * 4
    assert len(report["step_ns"]) == len(original.manifest.steps)
    assert report["images"] == 3
    assert report["threads"] == 2
    assert report["workspace_bytes"] == original.manifest.workspace_bytes
    assert np.array_equal(np.load(tmp_path / "y.npy"), original(images))


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_names_every_option(original, option):
    done = run(original, option)
    assert done.returncode == 0
    assert done.stderr == ""
    source = (Path(runtime.__file__).parent / "vitc_run.c").read_text()
    for known in set(re.findall(r'strcmp\(option, "(--[a-z-]+)"\)', source)) - {"--help"}:
        assert f"{known} " in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 120


@pytest.mark.parametrize(("value", "said"), [(np.nan, "nan"), (np.inf, "inf"), (-np.inf, "-inf")])
def test_a_value_that_is_not_finite_is_refused_with_its_place(
    original, images, tmp_path, value, said
):
    spoilt = images.copy()
    spoilt[1, 2, 3, 4] = value
    np.save(tmp_path / "x.npy", spoilt)
    done = run(original, tmp_path / "x.npy", tmp_path / "y.npy")
    assert done.returncode == 1
    assert f"holds {said} at [1, 2, 3, 4], wanted finite numbers" in done.stderr
    assert not (tmp_path / "y.npy").exists()


def test_the_output_is_written_through_what_is_no_file(original, source, images, tmp_path):
    (tmp_path / "link.npy").symlink_to(tmp_path / "y.npy")
    assert run(original, source, tmp_path / "link.npy").returncode == 0
    assert (tmp_path / "link.npy").is_symlink()
    assert np.array_equal(np.load(tmp_path / "y.npy"), original(images))

    os.mkfifo(tmp_path / "pipe")
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit((tmp_path / "pipe").read_bytes)
        assert run(original, source, tmp_path / "pipe").returncode == 0
        assert read.result() == (tmp_path / "y.npy").read_bytes()
    assert (tmp_path / "pipe").is_fifo()
    assert not list(tmp_path.glob("*.part"))


def broken_header(path):
    path.write_bytes(b"\x93NUMPY\x01\x00\xff\xff{'descr'")


def truncated(path):
    np.save(path, np.zeros((2, 3, 12, 12), np.float32))
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_bytes(b""), "not a .npy file"),
        (lambda path: path.write_bytes(b"PNG" * 50), "not a .npy file"),
        (broken_header, "truncated"),
        (truncated, "truncated"),
        (lambda path: np.save(path, np.zeros((1, 3, 12, 12))), "fp32"),
        (lambda path: np.save(path, np.zeros((3, 12, 12), np.float32)), "four dimensions"),
        (lambda path: np.save(path, np.zeros((1, 3, 12, 12, 1), np.float32)), "four dimensions"),
        (lambda path: np.save(path, np.zeros((1, 3, 16, 12), np.float32)), "wants 3 x 12 x 12"),
        (
            lambda path: np.save(path, np.asfortranarray(np.zeros((2, 3, 12, 12), np.float32))),
            "C order",
        ),
    ],
)
def test_bad_input_is_one_sentence_and_no_output(original, tmp_path, make, message):
    make(tmp_path / "x.npy")
    done = run(original, tmp_path / "x.npy", tmp_path / "y.npy")
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "y.npy").exists()


@pytest.mark.parametrize(
    "options",
    [
        ["--threads", "0"],
        ["--threads", "65"],
        ["--repeat", "x"],
        ["--fast"],
        ["--threads"],
        ["third"],
    ],
)
def test_bad_options_are_one_sentence(original, source, tmp_path, options):
    done = run(original, source, tmp_path / "y.npy", *options)
    assert done.returncode == 1
    assert done.stderr.startswith("vitc-run: ")
    assert done.stderr.count("\n") == 1


def test_a_missing_library_is_named(artefact, source, tmp_path):
    artefact.library.unlink()
    done = run(artefact, source, tmp_path / "y.npy")
    assert done.returncode == 1
    assert "libvitc_model.so" in done.stderr


@pytest.mark.parametrize("keep", [0, 10, 64, 1000, -4096])
def test_a_truncated_library_is_refused(artefact, source, tmp_path, keep):
    artefact.library.write_bytes(artefact.library.read_bytes()[:keep])
    done = run(artefact, source, tmp_path / "y.npy")
    assert done.returncode == 1
    assert "libvitc_model.so" in done.stderr


def test_a_library_of_another_architecture_is_refused(artefact, source, tmp_path):
    data = bytearray(artefact.library.read_bytes())
    data[18] = 0xB7  # e_machine: AArch64
    artefact.library.write_bytes(data)
    done = run(artefact, source, tmp_path / "y.npy")
    assert done.returncode == 1
    assert "this architecture" in done.stderr


def test_an_unwritable_output_is_an_error(original, source, tmp_path):
    done = run(original, source, tmp_path / "no" / "y.npy")
    assert done.returncode == 1
    assert "No such file" in done.stderr
