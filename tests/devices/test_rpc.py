"""Runs over TVM RPC, against a real server and tracker as processes."""

from __future__ import annotations

import dataclasses
import re
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.compiler.towers import IMAGE_VECTORS, TEXT_VECTORS, exported
from tests.devices.sshd import HANG_S, free_port
from vitc.bench.profile import profile
from vitc.compiler import compile_model
from vitc.compiler.link import run_zig
from vitc.devices import LocalDevice, RpcDevice, RunRequest, parse_device
from vitc.devices.serve import ServeOptions, TrackerOptions
from vitc.errors import VitcError
from vitc.runtime import Artefact


def test_a_run_over_rpc_gives_the_bits_and_the_trace_of_a_local_one(
    rpc_server: str, compiled: Artefact, images: NDArray[np.float32]
) -> None:
    device = parse_device(rpc_server)
    device.supports(compiled)
    request = RunRequest(threads=2, repeat=3, warmup=1, trace=True)

    done = device.run(compiled, images, request)

    here = LocalDevice().run(compiled, images, request)
    np.testing.assert_array_equal(done.logits, here.logits)
    assert done.trace is not None
    assert here.trace is not None
    assert done.trace.keys() == here.trace.keys()
    for name, value in here.trace.items():
        np.testing.assert_array_equal(done.trace[name], value)
    assert len(done.latencies_ns) == 2 * 3
    assert all(value > 0 for value in done.latencies_ns)
    for fact in ("architecture", "cpu", "features", "cores", "governor", "system"):
        assert done.facts[fact] == here.facts[fact]
    assert done.facts["conditions"].keys() == {"before", "after"}
    assert "emulator" not in done.facts
    assert device.remote


def test_a_server_outlives_a_library_that_crashes(
    rpc_server: str, compiled: Artefact, images: NDArray[np.float32], tmp_path: Path
) -> None:
    shutil.copytree(compiled.path, tmp_path / "crashing")
    crashing = dataclasses.replace(compiled, path=tmp_path / "crashing")
    source = tmp_path / "crash.c"
    source.write_text(
        "int __tvm_ffi_vitc_run(void) { __builtin_trap(); }\n"
        "int __tvm_ffi_vitc_trace(void) { __builtin_trap(); }\n"
    )
    triple = compiled.target.link
    made = ["-target", triple, "-shared", "-fPIC", str(source), "-o", str(crashing.library)]
    run_zig(made, tmp_path)

    with pytest.raises(VitcError, match=r"rpc://127\.0\.0\.1:\d+ failed: the library crashed"):
        parse_device(rpc_server).run(crashing, images, RunRequest())

    done = parse_device(rpc_server).run(compiled, images, RunRequest())
    np.testing.assert_array_equal(done.logits, compiled(images))


def test_what_the_library_says_there_is_the_error_here(
    rpc_server: str, compiled: Artefact, images: NDArray[np.float32]
) -> None:
    with pytest.raises(VitcError, match=r"failed: .*thread count is not 1 to 64\. "):
        parse_device(rpc_server).run(compiled, images, RunRequest(threads=65))


def test_a_run_that_takes_too_long_is_stopped_there(
    rpc_server: str, compiled: Artefact, images: NDArray[np.float32]
) -> None:
    request = RunRequest(repeat=1_000_000, timeout_s=1)
    with pytest.raises(VitcError, match="took longer than 1 s and was stopped"):
        parse_device(rpc_server).run(compiled, images, request)

    done = parse_device(rpc_server).run(compiled, images, RunRequest())
    np.testing.assert_array_equal(done.logits, compiled(images))


def test_a_tracker_hands_out_its_board_in_turns(
    rpc_farm: str, compiled: Artefact, images: NDArray[np.float32]
) -> None:
    # The tracker is recognised without being named.
    device = parse_device(rpc_farm.removesuffix("&tracker=1"))
    expected, got = compiled(images), []

    def run() -> None:
        got.append(device.run(compiled, images, RunRequest()).logits)

    workers = [threading.Thread(target=run) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(HANG_S)
    assert len(got) == 2
    for logits in got:
        np.testing.assert_array_equal(logits, expected)


def test_a_tracker_names_the_boards_it_has(
    rpc_farm: str, compiled: Artefact, images: NDArray[np.float32]
) -> None:
    with pytest.raises(VitcError, match="no device with key 'toaster'; it has board"):
        parse_device(rpc_farm.replace("=board", "=toaster")).run(compiled, images, RunRequest())


def test_a_peer_that_never_answers_is_given_up(
    compiled: Artefact, images: NDArray[np.float32]
) -> None:
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        device = RpcDevice("127.0.0.1", mute.getsockname()[1], tracker=False, wait_s=5)
        with pytest.raises(VitcError, match="was not free within 5 s"):
            device.run(compiled, images, RunRequest())


@pytest.mark.parametrize(
    ("more", "commands"),
    [
        ("", {"serve"}),
        ("?key=rpi4", {"serve", "tracker"}),
        ("?key=rpi4&tracker=0", {"serve"}),
        ("?key=rpi4&tracker=1", {"tracker"}),
    ],
)
def test_nobody_there_names_the_command_to_start(
    compiled: Artefact, more: str, commands: set[str]
) -> None:
    with pytest.raises(VitcError, match=r"Nobody answers") as caught:
        parse_device(f"rpc://127.0.0.1:{free_port()}{more}").supports(compiled)
    assert set(re.findall("vitc device ([a-z]+)", caught.value.hint)) == commands


def test_there_is_no_profile_over_rpc(compiled: Artefact, images: NDArray[np.float32]) -> None:
    with pytest.raises(VitcError, match="no profile over RPC"):
        parse_device("rpc://127.0.0.1:9090").run(compiled, images, RunRequest(profile=True))
    with pytest.raises(VitcError, match="no profile over RPC"):
        profile(compiled, parse_device("rpc://127.0.0.1:9090"), threads=1)


@pytest.mark.parametrize(
    ("text", "device"),
    [
        ("rpc://pi:9090", RpcDevice("pi", 9090)),
        ("rpc://pi:9090?key=rpi4", RpcDevice("pi", 9090, "rpi4")),
        ("rpc://farm:9190?key=rpi4&tracker=1&wait=30", RpcDevice("farm", 9190, "rpi4", True, 30)),
        ("rpc://[::1]:9090?tracker=0", RpcDevice("::1", 9090, tracker=False)),
    ],
)
def test_urls(text: str, device: RpcDevice) -> None:
    assert parse_device(text) == device


@pytest.mark.parametrize(
    "text",
    ["rpc://", "rpc://pi", "rpc://pi:0", "rpc://pi:99999", "rpc://pi:x", "rpc://u@pi:1",
     "rpc://pi:9090?key=a b", "rpc://pi:9090?tracker=yes&key=a", "rpc://pi:9090?wait=0",
     "rpc://pi:9090?colour=red", "rpc://pi:9090?wait=nan"],
)  # fmt: skip
def test_no_urls(text: str) -> None:
    with pytest.raises(VitcError, match="no RPC device"):
        parse_device(text)


def test_a_tracker_without_a_key_is_refused() -> None:
    with pytest.raises(VitcError, match="no kind of device"):
        parse_device("rpc://farm:9190?tracker=1")


@pytest.mark.parametrize("options", [ServeOptions, TrackerOptions])
@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", ""])  # noqa: S104
def test_binding_elsewhere_needs_a_flag_and_says_why(
    options: type[ServeOptions] | type[TrackerOptions], host: str
) -> None:
    with pytest.raises(VitcError, match=r"run any code as this user.*--expose"):
        options(host=host)
    assert options(host=host, expose=True).host == host


@pytest.mark.parametrize("tracker", ["farm", ":1", "farm:", "farm:x", "farm:70000"])
def test_a_tracker_has_host_and_port(tracker: str) -> None:
    with pytest.raises(VitcError, match="no tracker"):
        ServeOptions(key="rpi4", tracker=tracker)


def test_a_taken_port_is_an_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [sys.executable, "-m", "vitc.cli", "device", "serve", "--port", port],
            capture_output=True,
            text=True,
            timeout=HANG_S,
            check=False,
        )
    assert done.returncode == 1
    assert f"error: Cannot listen at 127.0.0.1:{port}" in done.stderr


def test_every_entry_runs_over_rpc(rpc_server: str, tmp_path: Path) -> None:
    artefact = compile_model(exported(tmp_path)[1]["both"], "native", tmp_path / "native")
    rng = np.random.default_rng(1)
    given = {
        "image": rng.standard_normal((3, IMAGE_VECTORS, 40), np.float32),
        "text": rng.integers(0, 30, (3, TEXT_VECTORS)),
    }
    for name, inputs in given.items():
        part, request = artefact.at(name), RunRequest(trace=True)
        done = parse_device(rpc_server).run(part, inputs, request)
        here = LocalDevice().run(part, inputs, request)
        assert here.outputs[name].shape[0] == 3
        np.testing.assert_array_equal(done.outputs[name], here.outputs[name])
        assert done.trace is not None
        assert here.trace is not None
        assert f"{name}.rows" in here.trace
        for tap, value in here.trace.items():
            np.testing.assert_array_equal(done.trace[tap], value)
