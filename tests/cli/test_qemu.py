"""An ARM artefact, run and checked here through the device that emulates it."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest


def vitc(*arguments: object) -> str:
    """What a command prints, run as a program of its own."""
    command = [sys.executable, "-m", "vitc.cli", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(("target", "emulator"), [("arm", "aarch64"), ("armv7", "arm")])
def test_an_arm_artefact_checks_and_runs_under_qemu(
    built, tmp_path, need_emulator, target: str, emulator: str
) -> None:
    need_emulator(emulator)
    np.save(
        tmp_path / "x.npy", np.random.default_rng(3).standard_normal((2, 3, 32, 32), np.float32)
    )
    out = tmp_path / target

    vitc("compile", built.onnx, "--target", target, "--out", out)
    checked = json.loads(
        vitc("check", out, "--reference", built.checkpoint, "--device", "qemu", "--json", "-")
    )
    vitc("run", out, tmp_path / "x.npy", "--device", "qemu", "--out", tmp_path / "l.npy")
    vitc("run", built.artefact, tmp_path / "x.npy", "--out", tmp_path / "n.npy")

    assert checked["equal"]
    assert checked["device"] == "qemu"
    assert checked["near_ties"] == []
    difference = np.abs(np.load(tmp_path / "l.npy") - np.load(tmp_path / "n.npy")).max()
    assert difference < 1e-4
