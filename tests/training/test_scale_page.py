"""The lines of docs/scale.md that train, as they stand there, on loopback."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.devices.sshd import free_port
from tests.training.conftest import fill

PAGE = Path(__file__).parents[2] / "docs" / "scale.md"
PATIENCE_S = 900
PROGRAMS = {"accelerate": "accelerate.commands.launch", "torchrun": "torch.distributed.run"}


def lines(program: str) -> list[list[str]]:
    """Commands of the page that a program begins."""
    indented = [line.strip() for line in PAGE.read_text().splitlines() if line.startswith("    ")]
    return [shlex.split(line) for line in indented if line.startswith(f"{program} ")]


def started(words: list[str], folder: Path, port: int) -> subprocess.Popen[str]:
    """A command of the page, with what it leaves open filled in, on a small network."""
    filled = {"NODE0": "127.0.0.1", "29500": str(port), "DATA": str(folder / "images")}
    program, *rest = words
    if program == "accelerate":
        assert rest.pop(0) == "launch"
        rest = ["--main_process_port", "0", *rest]  # the usual one may be taken here
    rest = [filled.get(word, word) for word in rest]
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("ACCELERATE_", "PYTEST"))}
    small = ("--depth", "1", "--epochs", "1", "--warmup-epochs", "1", "--batch-size", "8")
    return subprocess.Popen(
        [sys.executable, "-m", PROGRAMS[program], *rest, *small],
        cwd=folder,
        env={
            **plain,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "OMP_NUM_THREADS": "1",
            "GLOO_SOCKET_IFNAME": "lo",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(("program", "count"), [("accelerate", 1), ("torchrun", 2)])
def test_the_page_trains_one_network_by_all_processes(
    tmp_path: Path, program: str, count: int
) -> None:
    for seed, name in enumerate(("dark", "light")):
        fill(tmp_path / "images" / name, 16, 120 * seed, seed)
    commands, port = lines(program), free_port()
    assert len(commands) == count
    processes = [started(words, tmp_path, port) for words in commands]
    try:
        said = [process.communicate(timeout=PATIENCE_S) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * count, said
    out, err = said[0]
    assert "test accuracy" in out
    assert err.count("wrote ") == 1
    # The other node takes part, and says and writes nothing.
    assert all("test accuracy" not in other and "wrote " not in text for other, text in said[1:])
    written = {"images", "m.safetensors", "m.last.pt", "m.png", "m.json"}
    assert {path.name for path in tmp_path.iterdir()} == written
