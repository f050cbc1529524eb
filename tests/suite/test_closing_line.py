from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.suite.closing_line import closing_line

ROOT = Path(__file__).parents[2]
TESTS = """
import pytest


@pytest.mark.parametrize("number", range(3))
def test_the_golden_files(number):
    pytest.skip("no golden files at /x")


@pytest.mark.skipif(True, reason="no qemu-arm, `make qemu` fetches it")
def test_arm():
    pass


def test_what_runs():
    pass
"""
SENTENCE = "Skipped 4 tests: 3 (no golden files at /x); 1 (no qemu-arm, `make qemu` fetches it)"


def run(folder: Path, text: str, *options: str) -> list[str]:
    (folder / "test_made.py").write_text(text)
    command = [sys.executable, "-m", "pytest", "-p", "tests.suite.closing_line", "-q", *options]
    done = subprocess.run(
        [*command, "--rootdir", folder, "-p", "no:cacheprovider", folder / "test_made.py"],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("options", [(), ("-n", "2")], ids=["one process", "two workers"])
def test_the_last_line_says_what_was_skipped_and_why(tmp_path: Path, options: tuple[str]) -> None:
    assert run(tmp_path, TESTS, *options)[-1] == SENTENCE


def test_the_last_line_says_that_nothing_was_skipped(tmp_path: Path) -> None:
    assert run(tmp_path, "def test_x():\n    pass\n")[-1] == "No test was skipped."


def test_a_reason_of_several_lines_becomes_one() -> None:
    assert closing_line(["Skipped: none\n  here", "none here"]) == "Skipped 2 tests: 2 (none here)"
