"""Runs over ssh, against a real OpenSSH server on this machine."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.devices.sshd import HANG_S, Server, key, wait_for
from vitc.bench.measure import BenchOptions, bench
from vitc.devices import DeviceRun, LocalDevice, RunRequest, SshDevice, parse_device
from vitc.errors import VitcError
from vitc.runtime import Artefact
from vitc.runtime.manifest import TargetFacts
from vitc.targets import TARGETS
from vitc.verify.portable import check_against_onnx

LONG = RunRequest(repeat=1_000_000, timeout_s=HANG_S)


def test_a_run_over_ssh_gives_the_bits_of_a_local_one_and_cleans_up(
    ssh_server: Server, compiled: Artefact, images: NDArray[np.float32]
) -> None:
    device = parse_device(ssh_server.url)
    device.supports(compiled)
    request = RunRequest(threads=2, repeat=3, warmup=1, trace=True, profile=True)

    done = device.run(compiled, images, request)

    here = LocalDevice().run(compiled, images, request)
    np.testing.assert_array_equal(done.logits, here.logits)
    assert done.trace is not None
    assert here.trace is not None
    assert done.trace.keys() == here.trace.keys()
    for name, value in here.trace.items():
        np.testing.assert_array_equal(done.trace[name], value)
    # Three images in batches of two are two runs.
    assert len(done.latencies_ns) == 2 * 3
    assert len(done.step_ns or ()) == len(compiled.manifest.steps)
    for fact in ("architecture", "cpu", "cores", "system", "features"):
        assert done.facts[fact] == here.facts[fact]
    assert device.remote
    assert not device.emulated
    assert ssh_server.leftovers() == []


PRINTING = """
echo 'Welcome to the board'; echo system=none
sh -c "$SSH_ORIGINAL_COMMAND"
code=$?
echo Goodbye
exit $code
"""
OTHER = 'echo Welcome; exec {} -c "$SSH_ORIGINAL_COMMAND"'


@pytest.mark.parametrize(
    ("program", "login_shell"),
    [("sh", PRINTING), *((name, OTHER.format(name)) for name in ("tcsh", "fish"))],
    ids=["prints before and after", "tcsh", "fish"],
)
def test_files_come_whole_through_any_login_shell(
    ssh_server: Server, compiled: Artefact, images: NDArray[np.float32], program: str
) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"no {program}, `apt install {program}` brings it")

    done = parse_device(ssh_server.url).run(compiled, images, RunRequest(trace=True))

    here = LocalDevice().run(compiled, images, RunRequest(trace=True))
    np.testing.assert_array_equal(done.logits, here.logits)
    assert done.trace is not None
    assert here.trace is not None
    for name, value in here.trace.items():
        np.testing.assert_array_equal(done.trace[name], value)
    assert done.facts["system"] == here.facts["system"]
    assert ssh_server.leftovers() == []


@pytest.mark.parametrize("login_shell", ["echo This account is not available.; exit 1"])
def test_what_a_login_shell_refuses_is_said(ssh_server: Server, compiled: Artefact) -> None:
    with pytest.raises(VitcError, match=r"no connection to .*: This account is not available\."):
        parse_device(ssh_server.url).supports(compiled)


READING = (
    'case "$SSH_ORIGINAL_COMMAND" in *"cat >"*vitc-run*) head -c 9 >/dev/null ;; esac\n' + PRINTING
)


@pytest.mark.parametrize("login_shell", [READING])
def test_a_login_shell_that_reads_what_is_sent_is_an_error(
    ssh_server: Server, compiled: Artefact, images: NDArray[np.float32]
) -> None:
    with pytest.raises(VitcError, match=r"was lost \(\d+ bytes of vitc-run arrived"):
        parse_device(ssh_server.url).run(compiled, images, RunRequest())


def test_a_path_that_is_no_place_for_a_socket_is_none(
    ssh_server: Server,
    compiled: Artefact,
    images: NDArray[np.float32],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / f'long "{"x" * 100}%h'))
    Path(tempfile.gettempdir()).mkdir()

    done = parse_device(ssh_server.url).run(compiled, images, RunRequest())

    np.testing.assert_array_equal(done.logits, compiled(images))


def test_check_and_bench_take_the_device(ssh_server: Server, compiled: Artefact) -> None:
    checked = check_against_onnx(compiled, parse_device(ssh_server.url))
    assert checked.equal
    assert {layer.name for layer in checked.layers} >= {"embedding", "logits"}

    timed = bench(compiled, BenchOptions(device=ssh_server.url, runs=30, threads=1))

    assert timed.runs == 30
    assert timed.baseline is None
    assert timed.ratio is None
    assert "the baselines run on this machine only, so there is no ratio" in timed.warnings
    assert timed.machine["conditions"].keys() == {"before", "after"}
    assert ssh_server.leftovers() == []


def test_bench_warns_of_throttling_there(
    ssh_server: Server, compiled: Artefact, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = SshDevice.run

    def hot(*arguments: Any) -> DeviceRun:
        done = run(*arguments)
        state = {"before": {"throttle_events": 1}, "after": {"throttle_events": 2}}
        return replace(done, facts={**done.facts, "conditions": state}, threads=1)

    monkeypatch.setattr(SshDevice, "run", hot)
    timed = bench(compiled, BenchOptions(device=ssh_server.url, runs=30, threads=2, baseline=None))

    assert timed.warnings.count("the processor was throttled during the runs") == 1
    assert "2 threads were asked for and 1 used, as many as there are cores" in timed.warnings


def test_a_folder_behind_the_host_is_where_the_files_go(
    ssh_server: Server, compiled: Artefact, images: NDArray[np.float32], tmp_path: Path
) -> None:
    folder = tmp_path / "an other place"
    device = SshDevice.parse(ssh_server.url)
    elsewhere = SshDevice(device.destination, device.port, str(folder))

    with pytest.raises(VitcError, match=r"no connection.*an other place"):
        elsewhere.run(compiled, images, RunRequest())
    folder.mkdir()
    done = elsewhere.run(compiled, images, RunRequest())

    np.testing.assert_array_equal(done.logits, compiled(images))
    assert list(folder.iterdir()) == []


def test_a_run_that_takes_too_long_is_stopped_there(
    ssh_server: Server, compiled: Artefact, images: NDArray[np.float32]
) -> None:
    with pytest.raises(VitcError, match=r"took longer than 1 s and was stopped"):
        parse_device(ssh_server.url).run(
            compiled, images, RunRequest(repeat=1_000_000, timeout_s=1)
        )
    assert ssh_server.leftovers() == []


def test_a_failing_runner_gives_its_message(
    ssh_server: Server, failing: Artefact, images: NDArray[np.float32]
) -> None:
    with pytest.raises(VitcError, match="The runner failed: no more paper"):
        parse_device(ssh_server.url).run(failing, images, RunRequest())
    assert ssh_server.leftovers() == []


def test_a_lost_connection_is_an_error_and_leaves_nothing(
    ssh_server: Server, compiled: Artefact, images: NDArray[np.float32]
) -> None:
    running = []

    def cut() -> None:
        running.append(
            wait_for(lambda: any("vitc-run" in entry for entry in ssh_server.leftovers()))
        )
        ssh_server.kill()

    cutter = threading.Thread(target=cut)
    cutter.start()
    with pytest.raises(VitcError, match=r"connection to ssh://.* was lost"):
        parse_device(ssh_server.url).run(compiled, images, LONG)
    cutter.join()

    assert running == [True]
    assert wait_for(lambda: ssh_server.leftovers() == []), ssh_server.leftovers()


def test_a_killed_vitc_leaves_nothing(
    ssh_server: Server, compiled: Artefact, images: NDArray[np.float32], tmp_path: Path
) -> None:
    np.save(tmp_path / "x.npy", images)
    program = (
        "import numpy, sys\nfrom vitc.devices import RunRequest, parse_device\n"
        "from vitc.runtime import Artefact\n"
        "request = RunRequest(repeat=1_000_000)\n"
        "images = numpy.load(sys.argv[3])\n"
        "parse_device(sys.argv[1]).run(Artefact.open(sys.argv[2]), images, request)"
    )
    given = [ssh_server.url, str(compiled.path), str(tmp_path / "x.npy")]
    here = {**os.environ, "TMPDIR": str(tmp_path)}  # what it leaves behind when it is killed
    process = subprocess.Popen([sys.executable, "-c", program, *given], env=here)
    try:
        assert wait_for(lambda: any("vitc-run" in entry for entry in ssh_server.leftovers()))
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert wait_for(lambda: ssh_server.leftovers() == []), ssh_server.leftovers()


def test_a_wrong_key_is_an_error_without_a_question_and_names_the_next_step(
    ssh_server: Server, compiled: Artefact, tmp_path: Path
) -> None:
    wrong = key(tmp_path / "wrong")
    text = ssh_server.configuration.read_text()
    user = ssh_server.configuration.parent / "user"
    ssh_server.configuration.write_text(
        text.replace(f'IdentityFile "{user}"', f'IdentityFile "{wrong}"')
    )

    with pytest.raises(VitcError, match=r"Permission denied.*keys and the agent only"):
        parse_device(ssh_server.url).supports(compiled)


def test_an_unknown_host_key_is_not_accepted(ssh_server: Server, compiled: Artefact) -> None:
    (ssh_server.configuration.parent / "known").write_text("")
    with pytest.raises(VitcError, match=r"Host key verification failed.*by hand"):
        parse_device(ssh_server.url).supports(compiled)


def test_a_server_that_is_not_there_is_an_error(ssh_server: Server, compiled: Artefact) -> None:
    ssh_server.kill()
    with pytest.raises(VitcError, match="Connection refused"):
        parse_device(ssh_server.url).supports(compiled)


def test_a_machine_of_another_architecture_is_refused_before_anything_is_copied(
    ssh_server: Server, compiled: Artefact
) -> None:
    foreign = "arm" if compiled.target.machine[0] == "x86_64" else "x86"
    manifest = replace(compiled.manifest, target=TargetFacts.of(TARGETS[foreign]))
    with pytest.raises(VitcError, match=f"the artefact is for {foreign}"):
        parse_device(ssh_server.url).supports(Artefact(compiled.path, manifest))


def test_a_missing_ssh_says_what_to_install(
    compiled: Artefact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(VitcError, match=r"Cannot start ssh.*openssh-client"):
        parse_device("ssh://board").supports(compiled)


@pytest.mark.parametrize(
    ("text", "destination", "port", "folder"),
    [
        ("ssh://pi@Board", "pi@Board", None, None),
        ("ssh://Board:2222", "Board", 2222, None),
        ("ssh://pi@10.0.0.7:22/home/pi/", "pi@10.0.0.7", 22, "/home/pi"),
        ("ssh://pi@[fe80::1%eth0]:22", "pi@fe80::1%eth0", 22, None),
    ],
)
def test_urls(text: str, destination: str, port: int | None, folder: str | None) -> None:
    assert SshDevice.parse(text) == SshDevice(destination, port, folder)


@pytest.mark.parametrize(
    "text",
    ["ssh://", "ssh://-oProxyCommand=x", "ssh://pi@", "ssh://a b", "ssh://h:port", "ssh://h:0x1",
     "ssh://-l@h", "ssh://h?x=1", "ssh://h;rm"],
)  # fmt: skip
def test_no_urls(text: str) -> None:
    with pytest.raises(VitcError, match="no ssh device"):
        parse_device(text)


def test_a_password_in_the_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(VitcError, match="takes no password") as caught:
        parse_device("ssh://pi:raspberry@board")
    assert "raspberry" not in str(caught.value)
