"""Each example trains, exports, compiles for this machine and for ARM, and checks, as it says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
PROGRAMS = [
    path
    for path in sorted(EXAMPLES.glob("*.py"))
    if "\nfrom digits import " in path.read_text(encoding="utf-8")
]


def test_there_are_examples() -> None:
    assert {path.stem for path in PROGRAMS} >= {"crossed", "mlp_mixer", "pyramid", "two_views"}


@pytest.mark.parametrize("program", PROGRAMS, ids=[path.stem for path in PROGRAMS])
def test_an_example_recognises_digits_and_its_libraries_compute_the_same(
    program: Path, tmp_path: Path, need_emulator
) -> None:
    need_emulator("aarch64")
    done = subprocess.run(
        [sys.executable, program, tmp_path / "out", "--epochs", "4"],
        check=True,
        capture_output=True,
        text=True,
        timeout=1800,
    )
    said = json.loads(done.stdout)
    assert [(each["target"], each["equal"]) for each in said["checks"]] == [
        ("native", True),
        ("arm", True),
    ]
    guessing = {"logits": 0.1, "digit": 0.1, "parity": 0.5}
    for output, share in said["test_accuracy"].items():
        assert share > guessing[output] + 0.15, output
