"""Threads: no more than processors, bound to none unless asked, whose number shows in no answer."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from vitc.devices.prediction import PredictOptions, predict
from vitc.errors import VitcError

PROCESSORS = sorted(os.sched_getaffinity(0))
MOST = 64


@pytest.fixture
def source(images, tmp_path):
    np.save(tmp_path / "x.npy", images)
    return tmp_path / "x.npy"


@contextlib.contextmanager
def running(artefact, source, threads, *options) -> Iterator[list[set[int]]]:
    """Where the threads of a runner that computes may run, thread by thread."""
    command = [artefact.runner, source, source.with_name("y.npy"), "--repeat", 1000000]
    command += ["--threads", threads, *options]
    with subprocess.Popen([*map(str, command)], stdout=subprocess.DEVNULL) as process:
        try:
            yield allowed(process.pid, threads, pinned="--pin" in options)
        finally:
            process.kill()


def allowed(pid: int, threads: int, *, pinned: bool) -> list[set[int]]:
    """The processors of each thread, once the runner has computed for a while."""
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        tasks = sorted(Path(f"/proc/{pid}/task").iterdir(), key=lambda task: int(task.name))
        sets = [os.sched_getaffinity(int(task.name)) for task in tasks]
        used = sum(map(int, Path(f"/proc/{pid}/stat").read_text().rsplit(")")[-1].split()[11:13]))
        if len(sets) == threads and used > 20 and (not pinned or all(len(s) == 1 for s in sets)):
            return sets
        time.sleep(0.05)
    raise AssertionError(f"there never were {threads} threads")


def report(artefact, source, *options):
    command = [artefact.runner, source, source.with_name("y.npy"), *options]
    done = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, timeout=600, check=True
    )
    return json.loads(done.stdout), done.stderr


def test_two_runners_at_once_may_use_every_processor(original, source):
    threads = min(2, len(PROCESSORS))
    with (
        running(original, source, threads) as first,
        running(original, source, threads) as second,
    ):
        assert first == second == [set(PROCESSORS)] * threads


def test_pinned_threads_have_a_processor_each(original, source):
    threads = min(2, len(PROCESSORS))
    with running(original, source, threads, "--pin") as sets:
        assert sets == [{processor} for processor in PROCESSORS[:threads]]
    assert report(original, source, "--pin")[0]["pinned"] is True
    assert report(original, source)[0]["pinned"] is False


def test_threads_beyond_the_processors_are_not_made_and_it_says_so(original, source):
    found, said = report(original, source, "--threads", MOST)
    most = min(MOST, len(PROCESSORS))
    assert (found["threads"], found["threads_asked"]) == (most, MOST)
    if most < MOST:
        assert said == (
            f"vitc-run: note: {MOST} threads asked for, {most} used, as many as there are "
            "processors\n"
        )
    assert report(original, source)[1] == ""


def test_a_process_that_may_use_one_processor_has_one_thread(original, source):
    os.sched_setaffinity(0, PROCESSORS[-1:])
    try:
        found, _ = report(original, source, "--threads", 3)
        with original.load(3) as model:
            assert model.threads == 1
    finally:
        os.sched_setaffinity(0, PROCESSORS)
    assert found["threads"] == 1


@pytest.mark.parametrize("threads", [2, 3, 7, MOST])
def test_more_threads_than_processors_give_the_same_logits(original, source, images, threads):
    options = ("--threads", threads, "--oversubscribe", "--repeat", 20)
    assert report(original, source, *options)[0]["threads"] == threads
    assert np.array_equal(np.load(source.with_name("y.npy")), original(images))


def test_a_model_in_this_process_has_no_more_threads_than_processors(original, images):
    with original.load(MOST) as model:
        assert model.threads == min(MOST, len(PROCESSORS))
        assert np.array_equal(model(images), original(images))


def test_the_command_says_how_many_threads_it_used(original, source, tmp_path):
    def run(*options):
        command = [sys.executable, "-m", "vitc.cli", "run", original.path, source, *options]
        return subprocess.run(
            [*map(str, command)], capture_output=True, text=True, timeout=300, check=True
        ).stderr

    cores = len(PROCESSORS)
    asked = min(cores + 1, MOST)
    said = run("--threads", asked, "--out", tmp_path / "many.npy")
    assert (f"{asked} threads asked for, {cores} used" in said) == (cores < MOST)
    assert "asked for" not in run("--pin", "--out", tmp_path / "one.npy")
    assert (tmp_path / "many.npy").read_bytes() == (tmp_path / "one.npy").read_bytes()


def test_what_cannot_be_pinned_is_refused(original, source):
    pinned = PredictOptions(pin=True, device="rpc://127.0.0.1:9090")
    with pytest.raises(VitcError, match="no thread is pinned over RPC"):
        predict(original.path, [source], pinned)
    with pytest.raises(VitcError, match="places its threads itself"):
        predict(original.onnx, [source], PredictOptions(pin=True))
