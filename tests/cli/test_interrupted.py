"""A command that is ended at any moment leaves nothing half written, and the next one sweeps.

`VITC_MOMENTS` is how many moments of each command are tried; each is drawn anew in every session.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from vitc.cli.signals import Interrupted
from vitc.models import load
from vitc.outputs import claim_file
from vitc.runtime import Artefact

MOMENTS = int(os.environ.get("VITC_MOMENTS", "2"))
ENDS = (signal.SIGTERM, signal.SIGKILL, signal.SIGINT, signal.SIGHUP)
WAIT_S = 600


def start(folder: Path, arguments: list[object]) -> subprocess.Popen[str]:
    (folder / "tmp").mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-m", "vitc.cli", *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "TMPDIR": str(folder / "tmp")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def alive(session: int) -> list[str]:
    """Command lines of the processes of a session."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, its = stat.read_text().rpartition(")")[2].split()[:4]
            line = stat.with_name("cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if int(its) == session and state != "Z":
            found.append(line.replace("\0", " "))
    return found


def ended(session: int) -> bool:
    for _ in range(600):
        if not alive(session):
            return True
        time.sleep(0.1)
    return False


def whole(path: Path, command: str) -> bool:
    """Whether an output is what its command makes, all of it."""
    if command == "compile":
        return bool(Artefact.open(path).classes)
    if command == "train":
        return load(path).config.depth == 1
    if command == "check":  # what it says of the machine changes from run to run
        return json.loads(path.read_text())["equal"] is True
    return path.read_bytes() == path.with_name("reference").read_bytes()


def words(command: str, built: Any) -> list[object]:
    return {
        "train": ["train", "--depth", 1, "--epochs", 2, "--out"],
        "export": ["export", built.checkpoint, "--out"],
        "compile": ["compile", built.onnx, "--out"],
        "check": [
            "check",
            built.artefact,
            "--reference",
            built.checkpoint,
            "--images",
            1,
            "--json",
        ],
    }[command]


@pytest.mark.parametrize("command", ["train", "export", "compile", "check"])
def test_at_random_moments_nothing_is_half_there_and_the_next_run_works(
    built: Any, tmp_path: Path, command: str
) -> None:
    name = "o.safetensors"
    arguments = words(command, built)
    began = time.monotonic()
    process = start(tmp_path, [*arguments, "reference.safetensors"])
    _, said = process.communicate(timeout=WAIT_S)
    duration = time.monotonic() - began
    assert process.returncode == 0, said
    assert not list((tmp_path / "tmp").iterdir())
    if command == "export":
        (tmp_path / "reference.safetensors").rename(tmp_path / "reference")
    usual = {path.name for path in tmp_path.iterdir()}
    beside = {name, "o.last.pt", "o.json", "o.png"}
    seed = random.randrange(1 << 32)
    draw = random.Random(seed)
    for number in range(MOMENTS):
        end = ENDS[number % len(ENDS)]
        moment = draw.uniform(0, duration)
        about = f"seed {seed}, {end.name} after {moment:.2f} of {duration:.2f} s"
        process = start(tmp_path, [*arguments, name])
        try:
            process.wait(moment)
        except subprocess.TimeoutExpired:
            process.send_signal(end)
        _, said = process.communicate(timeout=WAIT_S)
        code = process.returncode
        assert "Traceback" not in said, (about, said)
        assert ended(process.pid), (about, alive(process.pid))
        left = {path.name for path in tmp_path.iterdir()} - usual
        if name in left:
            assert whole(tmp_path / name, command), about
        if end == signal.SIGKILL:
            assert code in (0, -end), (about, said)
            hidden = left - beside
            assert all(entry.startswith(".o.") for entry in hidden), (about, left)
        else:
            # Before Python has begun the program, a signal ends it as the system does.
            assert code in (0, 128 + end, -end), (about, said)
            assert left <= beside, (about, left)
            assert not list((tmp_path / "tmp").iterdir()), about
        for entry in beside:
            path = tmp_path / entry
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    process = start(tmp_path, [*arguments, name])
    _, said = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0, said
    assert whole(tmp_path / name, command)
    assert {path.name for path in tmp_path.iterdir()} - usual <= beside


def test_a_signal_that_the_caller_ignores_stays_ignored(tmp_path: Path) -> None:
    code = (
        "import os, signal\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "from vitc.cli.signals import interruptible\n"
        "with interruptible():\n    os.kill(os.getpid(), signal.SIGHUP)\nprint('on')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "on\n"


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_that_a_callback_swallows_comes_again(tmp_path: Path, end: int) -> None:
    code = f"""
import os, time
from vitc.cli.signals import interruptible
class Swallows:
    def __del__(self):
        os.kill(os.getpid(), {int(end)})
        for _ in range(1000): pass
with interruptible():
    Swallows()
    time.sleep(3600)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=WAIT_S
    )
    assert done.returncode == 128 + end
    assert done.stderr == ""


def test_a_child_is_ended_by_a_signal_as_usual_from_its_first_moment_on() -> None:
    code = """
import os, signal, sys, time
from vitc.cli.signals import interruptible
with interruptible():
    for _ in range(100):
        child = os.fork()
        if child == 0:
            time.sleep(3600)
        os.kill(child, signal.SIGTERM)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=WAIT_S
    )
    assert done.stdout.split() == [str(-signal.SIGTERM)] * 100


def test_what_was_claimed_is_let_go_when_a_signal_comes(tmp_path: Path) -> None:
    def work() -> None:
        with claim_file(tmp_path / "a") as output, output.aside():
            raise Interrupted

    with pytest.raises(KeyboardInterrupt):
        work()
    assert not list(tmp_path.iterdir())
