"""`make dist`: wheel, sdist and checksums of the version that the changes have a word of."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.absent import absent
from tests.install.conftest import PROJECT

VERSION = PROJECT["version"]


def make(folder: Path) -> subprocess.CompletedProcess[str]:
    tool = shutil.which("make") or absent("no make", "VITC_REQUIRE_MAKE")
    # This environment is ready, whatever the copy's pyproject.toml is younger than.
    ready = f"{sys.prefix}/.ready"
    return subprocess.run(
        [tool, "dist", f"VENV={sys.prefix}", "-o", ready],
        capture_output=True, text=True, timeout=600, cwd=folder, check=False, env=os.environ,
    )  # fmt: skip


@pytest.fixture
def copy(checkout, tmp_path) -> Path:
    return Path(shutil.copytree(checkout, tmp_path / "copy"))


def test_dist_has_wheel_sdist_and_their_checksums(copy) -> None:
    done = make(copy)

    assert done.returncode == 0, done.stderr
    dist = copy / "dist"
    named = {f"vitc-{VERSION}-py3-none-any.whl", f"vitc-{VERSION}.tar.gz"}
    assert {path.name for path in dist.iterdir()} == {*named, "SHA256SUMS"}
    sums = dict(line.split()[::-1] for line in (dist / "SHA256SUMS").read_text().splitlines())
    assert sums == {name: hashlib.sha256((dist / name).read_bytes()).hexdigest() for name in named}


def test_a_version_without_a_word_in_the_changes_is_refused(copy) -> None:
    settings = copy / "pyproject.toml"
    text = settings.read_text()
    settings.write_text(text.replace(f'version = "{VERSION}"', 'version = "99.0.0"'))
    done = make(copy)

    assert done.returncode != 0
    assert "CHANGELOG.md says nothing of 99.0.0" in done.stderr
    assert not (copy / "dist").exists()
