"""An ARM artefact behind a real TVM RPC server in an emulated 64-bit ARM machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cli.page import Page
from tests.devices.arm_userland import Userland
from vitc import api


@pytest.fixture(scope="module")
def arm(built: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("arm")
    api.compile(built.onnx, folder / "arm", api.CompileOptions(target="arm", check=False))
    np.save(folder / "x.npy", np.random.default_rng(3).standard_normal((2, 3, 32, 32), np.float32))
    return folder / "arm"


@pytest.mark.parametrize("way", ["server", "farm"])
def test_the_library_in_the_arm_machine_gives_the_bits_of_the_runner(
    vitc: Any, arm: Path, arm_userland: Userland, tmp_path: Path, way: str
) -> None:
    images = arm.with_name("x.npy")

    there = vitc(
        "run", arm, images, "--device", getattr(arm_userland, way), "--out", tmp_path / "t.npy"
    )
    here = vitc("run", arm, images, "--device", "qemu", "--out", tmp_path / "h.npy")

    assert (there.code, here.code) == (0, 0), there.err
    assert (tmp_path / "t.npy").read_bytes() == (tmp_path / "h.npy").read_bytes()


def test_every_layer_in_the_arm_machine_equals_the_reference(
    vitc: Any, built: Any, arm: Path, arm_userland: Userland, tmp_path: Path
) -> None:
    report = tmp_path / "check.html"
    done = vitc(
        "check", arm, "--reference", built.checkpoint, "--device", arm_userland.server,
        "--json", "-", "--report", report,
    )  # fmt: skip

    assert done.code == 0, done.err
    assert done.json["equal"]
    assert done.json["device"] == arm_userland.server
    assert done.json["machine"]["architecture"] == "aarch64"
    assert done.json["machine"]["emulator"].startswith("qemu-aarch64")
    assert done.json["machine"]["cores"] >= 1
    assert {layer["name"] for layer in done.json["layers"]} >= {"embedding", "logits"}
    assert "qemu-aarch64" in Page(report).text


def test_times_of_an_emulated_machine_are_labelled(
    vitc: Any, arm: Path, arm_userland: Userland, tmp_path: Path
) -> None:
    report = tmp_path / "bench.html"
    done = vitc(
        "bench", arm, "--device", arm_userland.server, "--runs", 30,
        "--json", tmp_path / "bench.json", "--report", report,
    )  # fmt: skip

    assert done.code == 0, done.err
    assert "emulated ms" in done.out
    assert "warning: emulated: the times say nothing" in done.err
    page = Page(report)
    assert "emulated" in page.text
    assert arm_userland.server in page.text


def test_a_farm_has_the_arm_machine_too(
    vitc: Any, arm: Path, arm_userland: Userland, tmp_path: Path
) -> None:
    tracker, _, kind = arm_userland.farm.removesuffix("&tracker=1").partition("?key=")
    done = vitc("bench", arm, "--device", f"{tracker}/{kind}*", "--runs", 30, "--json", "-")

    assert done.code == 0, done.err
    (board,) = done.json["boards"]
    assert board["kind"] == kind
    assert board["result"]["emulated"]
    assert board["result"]["machine"]["architecture"] == "aarch64"
