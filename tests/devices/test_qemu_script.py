"""What `make` does for an emulator that counts: tests/devices/qemu.sh."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("qemu.sh")
FETCHED = Path(__file__).parents[2] / ".venv" / "qemu"
EMULATORS = ("qemu-aarch64", "qemu-arm", "qemu-x86_64")


def program(path: Path, body: str) -> None:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def fetch(folder: Path, programs: Path) -> subprocess.CompletedProcess[str]:
    """Run the script with programs in front of those of the machine."""
    environment = {**os.environ, "PATH": f"{programs}:/usr/bin:/bin"}
    command = ["sh", str(SCRIPT), str(folder)]
    return subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=600, env=environment
    )


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder with an apt-get that reaches nothing, so that no test depends on a network."""
    folder = tmp_path / "programs of a test"
    folder.mkdir()
    program(folder / "apt-get", "echo 'E: Could not resolve host' >&2; exit 100")
    return folder


def test_emulators_that_load_plugins_are_kept(tmp_path: Path, programs: Path) -> None:
    for name in EMULATORS:
        program(programs / name, "echo '-plugin  QEMU_PLUGIN'")

    done = fetch(tmp_path / "qemu", programs)

    assert (done.stdout, done.stderr) == ("", "")
    assert not (tmp_path / "qemu").exists()


def test_where_nothing_can_be_fetched_a_sentence_says_what_to_install(
    tmp_path: Path, programs: Path
) -> None:
    for name in EMULATORS:
        program(programs / name, "echo 'a statically linked one'")

    done = fetch(tmp_path / "qemu", programs)

    assert "qemu-user cannot be fetched here" in done.stdout
    assert "apt install qemu-user" in done.stdout
    assert "Could not resolve host" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == [programs.name]


def test_the_fetched_emulators_load_plugins_wherever_they_lie(tmp_path: Path) -> None:
    if not (FETCHED / "loader").is_dir():
        pytest.skip(f"no qemu at {FETCHED}: `make qemu` fetches it where none that counts is there")
    moved = tmp_path / "an other place"
    shutil.copytree(FETCHED, moved, symlinks=True)
    (tmp_path / "link").symlink_to(moved / "usr" / "bin" / "qemu-arm")

    for path in [*(moved / "usr" / "bin" / name for name in EMULATORS), tmp_path / "link"]:
        done = subprocess.run(
            [path, "-help"], capture_output=True, text=True, check=False, timeout=300
        )
        assert "-plugin" in done.stdout
