"""A compile that is killed leaves nothing that loads, and an artefact that was there as it was."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vitc.compiler import compile_model
from vitc.errors import VitcError
from vitc.exporter import export
from vitc.models import ModelConfig
from vitc.models.initialise import random_model
from vitc.runtime import Artefact

CONFIG = ModelConfig(
    image_size=4, patch_size=2, width=12, depth=1, heads=2, hidden=9, classes=3, si=False
)  # fmt: skip
PROGRAM = """
import os, signal, sys
from vitc.compiler import compile as compiling
from vitc.outputs import folder
file, out, moment = sys.argv[1:]
def end(*_): os.kill(os.getpid(), signal.SIGKILL)
def progress(phase):
    if phase == moment: end()
check = end if moment == "sealed" else None
if moment == "named": folder.sync = lambda path: end() if path.name == "place" else None
compiling.compile_model(file, "x86-64-v2", out, force=True, check=check, progress=progress)
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    return export(random_model(CONFIG, 1), tmp_path_factory.mktemp("killed") / "m.onnx").path


@pytest.fixture(scope="module")
def old(file) -> Path:
    return compile_model(file, "x86-64-v2", file.parent / "old", batch=3).path


def killed(file: Path, out: Path, moment: str) -> None:
    command = [sys.executable, "-c", PROGRAM, str(file), str(out), moment]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr


def test_nothing_that_loads_is_left_and_nothing_stands_in_the_way(file, tmp_path):
    killed(file, tmp_path / "new", "linking")
    with pytest.raises(VitcError, match="There is no folder"):
        Artefact.open(tmp_path / "new")
    compile_model(file, "x86-64-v2", tmp_path / "new")


def test_an_artefact_that_was_there_is_as_it_was(file, old, tmp_path):
    shutil.copytree(old, tmp_path / "kept")
    killed(file, tmp_path / "kept", "sealed")
    assert Artefact.open(tmp_path / "kept").batch == 3


def test_once_it_has_its_name_it_is_whole(file, old, tmp_path):
    place = tmp_path / "place"
    place.mkdir()
    shutil.copytree(old, place / "out")
    killed(file, place / "out", "named")
    assert Artefact.open(place / "out").batch == 1
