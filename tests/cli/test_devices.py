"""Run, check and bench by command on each kind of device.

ssh and TVM RPC are real servers on this machine; adb is a program that speaks its protocol.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import psutil
import pytest
from onnx import numpy_helper
from PIL import Image

from tests.cli.page import Page
from tests.devices.sshd import HANG_S, Server, free_port, wait_for
from vitc.devices.machine import usable_cores

KINDS = ["ssh", "rpc", "farm", "adb"]
FACTS = {"architecture", "cpu", "features", "cores", "governor", "load", "system", "conditions"}


@pytest.fixture
def device(request: pytest.FixtureRequest) -> str:
    """The name of a device, given its kind."""
    match request.param:
        case "ssh":
            return str(request.getfixturevalue("ssh_server").url)
        case "adb":
            request.getfixturevalue("adb_data")
            return "adb://SERIAL-1"
        case kind:
            return str(request.getfixturevalue({"rpc": "rpc_server", "farm": "rpc_farm"}[kind]))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    path = tmp_path / "x.npy"
    np.save(path, np.random.default_rng(3).standard_normal((3, 3, 32, 32), np.float32))
    return path


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """Two images of each class, in class folders."""
    random = np.random.default_rng(5)
    for number in range(20):
        path = tmp_path / "labelled" / str(number % 10) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (32, 32, 3), np.uint8)).save(path)
    return tmp_path / "labelled"


@pytest.fixture
def faulty(built: Any, tmp_path: Path) -> Path:
    """An artefact whose library adds a bias in the wrong order."""
    copy = tmp_path / "faulty"
    shutil.copytree(built.artefact, copy)
    constants = onnx.load(copy / "model.onnx").graph.initializer
    bias = next(numpy_helper.to_array(t) for t in constants if t.name == "blocks.0.mlp.output.bias")
    raw = (copy / "libvitc_model.so").read_bytes()
    assert raw.count(bias.tobytes()) == 1
    raw = raw.replace(bias.tobytes(), bias[::-1].tobytes())
    (copy / "libvitc_model.so").write_bytes(raw)
    return copy


def on_every(*kinds: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("device", kinds or KINDS, indirect=True)


@on_every()
def test_run_gives_the_bits_of_a_run_here(
    vitc: Any, built: Any, images: Path, tmp_path: Path, device: str
) -> None:
    out = tmp_path / "there.npy"

    there = vitc("run", built.artefact, images, "--device", device, "--out", out, "--json", "-")
    here = vitc("run", built.artefact, images, "--out", tmp_path / "here.npy", "--json", "-")

    assert there.code == 0, there.err
    assert out.read_bytes() == (tmp_path / "here.npy").read_bytes()
    assert there.json == here.json


@on_every()
def test_check_of_labelled_images_reports_accuracy_and_the_machine(
    vitc: Any, built: Any, labelled: Path, tmp_path: Path, device: str
) -> None:
    report = tmp_path / "check.html"
    done = vitc(
        "check", built.artefact, "--reference", built.checkpoint, "--data", labelled,
        "--device", device, "--json", "-", "--report", report,
    )  # fmt: skip

    assert done.code == 0, done.err
    found = done.json
    assert found["equal"]
    assert found["images"] == 20
    assert found["accuracy"]["reference"] == found["accuracy"]["candidate"]
    assert found["top1_agreement"] == 1
    assert found["differing_images"] == []
    assert_describes(report, found["machine"], f"--device {shlex.quote(device)}")
    assert "accuracy of the candidate" in Page(report).text


@on_every("ssh", "rpc", "adb")
def test_check_shows_some_differing_images_and_reports_them_all(
    vitc: Any, built: Any, faulty: Path, labelled: Path, tmp_path: Path, device: str
) -> None:
    arguments = ["check", faulty, "--reference", built.checkpoint, "--data", labelled]
    report = tmp_path / "check.html"

    done = vitc(
        *arguments, "--device", device, "--json", tmp_path / "check.json", "--report", report
    )

    assert done.code == 3
    assert "not equal" in done.out
    page = Page(report)
    lines = [line for line in done.out.splitlines() if line.startswith("image ")]
    assert all("logits differ by" in line for line in lines)
    assert len(lines) == 10
    assert "... and 10 more" in done.out
    assert all(str(path) in page.text for path in labelled.rglob("*.png"))
    assert "accuracy of the reference" in done.out
    assert "accuracy of the candidate" in done.out
    assert "same class" in done.out
    written = json.loads((tmp_path / "check.json").read_text())
    assert len(written["differing_images"]) == 20
    assert written["first_difference"] == "blocks.0.mlp.output"


@on_every()
def test_bench_reports_latency_and_the_machine(
    vitc: Any, built: Any, tmp_path: Path, device: str
) -> None:
    report = tmp_path / "bench.html"
    cores = len(usable_cores())

    done = vitc(
        "bench", built.artefact, "--device", device, "--runs", 30, "--threads", cores + 1,
        "--json", "-", "--report", report,
    )  # fmt: skip

    assert done.code == 0, done.err
    found = done.json
    times = found["latency_ms"]
    assert 0 < times["min"] <= times["p10"] <= times["median"] <= times["p90"]
    assert found["device"].partition("?")[0] == device.partition("?")[0]
    assert not found["emulated"]
    assert found["ratio"] is None
    assert found["threads"] == cores
    assert found["pinned"] is not device.startswith("rpc:")
    assert any(f"asked for and {cores} used" in warning for warning in found["warnings"])
    assert_describes(report, found["machine"], f"--device {shlex.quote(device)}")


@on_every("ssh", "adb")
def test_bench_reports_the_latency_of_each_layer_there(
    vitc: Any, built: Any, tmp_path: Path, device: str
) -> None:
    report = tmp_path / "bench.html"

    done = vitc(
        "bench", built.artefact, "--device", device, "--runs", 30, "--profile",
        "--json", "-", "--report", report,
    )  # fmt: skip

    assert done.code == 0, done.err
    layers = done.json["profile"]["layers"]
    assert sum(layer["share"] for layer in layers) == pytest.approx(1)
    assert done.json["peaks"] is None
    text = Page(report).text
    assert all(layer["name"] in text for layer in layers)


def assert_describes(report: Path, machine: dict[str, Any], command: str) -> None:
    """A report tells the facts of a machine and the command that made it."""
    assert machine.keys() >= FACTS
    assert machine["cpu"]
    assert machine["features"]
    assert machine["cores"] >= 1
    page = Page(report)
    assert command in page.text
    for fact in ("architecture", "cpu", "system"):
        assert str(machine[fact]) in page.text
    assert " ".join(machine["features"]) in page.text


@pytest.mark.parametrize("command", ["run", "check", "bench"])
@pytest.mark.parametrize(
    ("kind", "next_step"),
    [("ssh", "true` work first"), ("rpc", "vitc device serve"), ("adb", "adb devices")],
)
def test_a_device_that_is_not_there_is_exit_code_1_and_the_next_step(
    vitc: Any, built: Any, images: Path, adb_data: Path, kind: str, next_step: str, command: str
) -> None:
    name = "adb://SERIAL-2" if kind == "adb" else f"{kind}://127.0.0.1:{free_port()}"
    given = {"run": [images], "check": ["--reference", built.checkpoint], "bench": []}[command]

    done = vitc(command, built.artefact, *given, "--device", name)

    assert done.code == 1
    assert done.err.count("error: ") == 1
    assert next_step in done.err


def test_an_interrupted_run_over_ssh_leaves_nothing_anywhere(
    built: Any, ssh_server: Server, tmp_path: Path
) -> None:
    with long_bench(built.artefact, ssh_server.url, 1_900_000, tmp_path) as process:
        assert wait_for(lambda: any("vitc-run" in e for e in ssh_server.leftovers()))
        interrupt(process)

    assert wait_for(lambda: ssh_server.leftovers() == []), ssh_server.leftovers()
    assert not list(tmp_path.glob("vitc-*"))


def test_an_interrupted_run_over_rpc_frees_the_server(
    vitc: Any, built: Any, images: Path, rpc_server: str, tmp_path: Path
) -> None:
    def connected() -> bool:
        return any(
            connection.status == psutil.CONN_ESTABLISHED
            for client in psutil.Process(process.pid).children(recursive=True)
            for connection in client.net_connections()
        )

    with long_bench(built.artefact, rpc_server, 60_000_000, tmp_path) as process:
        assert wait_for(connected)
        time.sleep(2)  # for the library to be there and run
        interrupt(process)

    done = vitc("run", built.artefact, images, "--device", f"{rpc_server}?wait=600")
    assert done.code == 0, done.err
    assert not list(tmp_path.glob("vitc-*"))


@contextmanager
def long_bench(
    artefact: Path, device: str, runs: int, scratch: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A bench that takes minutes and keeps its temporary files in `scratch`."""
    command = [sys.executable, "-m", "vitc.cli", "bench", str(artefact), "--runs", str(runs)]
    process = subprocess.Popen(
        [*command, "--device", device],
        env={**os.environ, "TMPDIR": str(scratch)},
        stderr=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def interrupt(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=HANG_S)
    assert process.returncode == 130
    assert b"Traceback" not in said
