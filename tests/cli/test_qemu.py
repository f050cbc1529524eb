"""An ARM artefact, run and checked here through the device that emulates it."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.mark.parametrize(("target", "emulator"), [("arm", "aarch64"), ("armv7", "arm")])
def test_an_arm_artefact_checks_and_runs_under_qemu(
    vitc, built, tmp_path, need_emulator, target: str, emulator: str
) -> None:
    need_emulator(emulator)
    np.save(
        tmp_path / "x.npy", np.random.default_rng(3).standard_normal((2, 3, 32, 32), np.float32)
    )
    out = tmp_path / target

    assert vitc("compile", built.onnx, "--target", target, "--out", out).code == 0
    checked = vitc("check", out, "--reference", built.checkpoint, "--device", "qemu", "--json", "-")
    ran = vitc("run", out, tmp_path / "x.npy", "--device", "qemu", "--out", tmp_path / "l.npy")
    vitc("run", built.artefact, tmp_path / "x.npy", "--out", tmp_path / "n.npy")

    assert checked.code == 0
    assert checked.json["device"] == "qemu"
    assert checked.json["near_ties"] == []
    assert ran.code == 0
    difference = np.abs(np.load(tmp_path / "l.npy") - np.load(tmp_path / "n.npy")).max()
    assert difference < 1e-4
