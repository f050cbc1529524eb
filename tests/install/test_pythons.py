"""The core on Pythons other than that of the tests, wherever they are installed."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.absent import absent
from tests.install.conftest import PROJECT
from vitc.runtime import Artefact


@pytest.mark.parametrize("minor", [12, 13, 14])
def test_the_core_runs_on_other_pythons(environment, wheel, folder, minor) -> None:
    python = other_python(minor)
    made = environment(f"python3.{minor}", python)
    made.fetch(PROJECT["dependencies"])
    made.install(wheel)
    done = made.vitc("run", "here", "x.png", "--json", "-", folder=folder)

    assert done.returncode == 0, done.stderr
    logits = Artefact.open(folder / "here")(
        Artefact.open(folder / "here").preprocess(folder / "x.png")
    )
    assert json.loads(done.stdout)["inputs"][0]["top"][0]["index"] == int(logits.argmax())


def other_python(minor: int) -> str:
    """Path of an interpreter: on the path, or among pyenv's."""
    kept = Path.home() / ".pyenv" / "versions"
    named = [shutil.which(f"python3.{minor}"), *kept.glob(f"3.{minor}.*/bin/python")]
    for found in filter(None, named):
        done = subprocess.run(
            [str(found), "-c", "import sys, venv; print(sys.version_info[1])"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.stdout.strip() == str(minor):
            return str(found)
    return absent(f"no Python 3.{minor}", "VITC_REQUIRE_PYTHONS")
