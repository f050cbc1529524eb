"""A wheel of this checkout, and environments with nothing but it and what it says it needs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.absent import absent
from vitc import api
from vitc.models import save

REPOSITORY = Path(__file__).parents[2]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
SOURCES = (
    *("toolchain", "passes", "targets", "packaging", "docs", "examples"),
    *(
        "pyproject.toml",
        "Makefile",
        "README.md",
        "LICENSE",
        "CHANGELOG.md",
        "SECURITY.md",
        "MANIFEST.in",
        "constraints.txt",
    ),
)


def run(*command: object, folder: Path | None = None, **environment: str) -> str:
    """What a program printed, in an environment that knows nothing of this one's packages."""
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=600, cwd=folder,
        env=clean() | environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def clean() -> dict[str, str]:
    """The environment without what points Python at other packages."""
    return {n: v for n, v in os.environ.items() if n not in ("PYTHONPATH", "PYTHONHOME")}


class Environment:
    """A new virtual environment without pip, so that its size is that of what is installed."""

    def __init__(self, folder: Path, python: str = sys.executable) -> None:
        self.folder = folder
        run(python, "-m", "venv", "--without-pip", folder)
        self.python = folder / "bin" / "python"

    @property
    def packages(self) -> Path:
        (found,) = (self.folder / "lib").glob("python3.*/site-packages")
        return found

    def fetch(self, requirements: Sequence[str]) -> None:
        """Install from the registry; a test that cannot reach it has nothing to say."""
        done = self._pip("--constraint", REPOSITORY / "constraints.txt", *requirements)
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            absent(
                f"pip cannot fetch {', '.join(requirements)} ({(said or ['no message'])[-1]})",
                "VITC_REQUIRE_REGISTRY",
            )

    def install(self, *wheels: Path) -> None:
        """Install wheels, whose requirements must be here."""
        done = self._pip("--no-index", *wheels)
        assert done.returncode == 0, done.stdout + done.stderr

    def _pip(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        pip = [sys.executable, "-m", "pip", "--python", self.python, "install", "--quiet"]
        return subprocess.run(
            [str(part) for part in (*pip, *arguments)], capture_output=True, text=True,
            timeout=600, env=clean(), check=False,
        )  # fmt: skip

    def vitc(self, *arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(part) for part in (self.folder / "bin" / "vitc", *arguments)],
            capture_output=True, text=True, timeout=600, cwd=folder, env=clean(), check=False,
        )  # fmt: skip


@pytest.fixture(scope="session")
def checkout(tmp_path_factory) -> Path:
    """A copy of what a wheel is made of, since building writes beside it."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in SOURCES:
        source = REPOSITORY / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, folder / name, ignore=ignored)
        else:
            shutil.copy(source, folder / name)
    return folder


@pytest.fixture(scope="session")
def built(checkout, tmp_path_factory) -> Path:
    """The folder of the sdist, and of the wheel that was made of the sdist."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, checkout)
    return out


@pytest.fixture(scope="session")
def wheel(built) -> Path:
    (found,) = built.glob("*.whl")
    return found


@pytest.fixture(scope="session")
def environment(tmp_path_factory) -> Callable[..., Environment]:
    """Makes a new environment, given its name, and if not this one the Python of it."""

    def make(name: str, python: str = sys.executable) -> Environment:
        return Environment(tmp_path_factory.mktemp("env") / name, python)

    return make


@pytest.fixture(scope="session")
def core(environment, wheel) -> Environment:
    """What `pip install vitc` makes."""
    made = environment("core")
    made.fetch(PROJECT["dependencies"])
    made.install(wheel)
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """An artefact, what it was made of, and a picture."""
    made = tmp_path_factory.mktemp("core")
    save(api.new("micro", depth=1, seed=3), made / "m.safetensors")
    api.export(made / "m.safetensors", made / "m.onnx", api.ExportOptions(check=False))
    api.compile(made / "m.onnx", made / "here")
    # As if it were a network without a configuration.
    shutil.copytree(made / "here", made / "own")
    manifest = json.loads((made / "own" / "manifest.json").read_text())
    (made / "own" / "manifest.json").write_text(json.dumps({**manifest, "config": {}}))
    (made / "photos").mkdir()
    (made / "photos.vidx").write_bytes(b"")
    pixels = np.random.default_rng(1).integers(0, 256, (50, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(made / "x.png")
    return made
