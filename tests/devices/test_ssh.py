"""A real OpenSSH server on this machine, with a throw-away key and a configuration of its own."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from vitc.bench.measure import BenchOptions, bench
from vitc.devices import DeviceRun, LocalDevice, RunRequest, SshDevice, parse_device
from vitc.devices.ssh import SSH_CONFIG
from vitc.errors import VitcError
from vitc.runtime import Artefact
from vitc.verify.portable import check_against_onnx

LONG = RunRequest(repeat=1_000_000, timeout_s=60)


@dataclass
class Server:
    """A running sshd.

    Attributes:
        url: The device.
        home: Folder in which runs make their temporary folder.
        configuration: Of the client.
        process: Of the server.
    """

    url: str
    home: Path
    configuration: Path
    process: subprocess.Popen[bytes]

    def kill(self) -> None:
        """Kill the server and its connections without a word, as if the network were gone."""
        own = psutil.Process(self.process.pid)
        for process in [own, *own.children(recursive=True)]:
            # A connection that has just ended is as good as killed.
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.name().startswith("sshd"):
                    process.kill()
        self.process.wait()

    def leftovers(self) -> list[str]:
        """What lies in its home, and the runners that were started from there."""
        running = [
            " ".join(process.info["cmdline"])
            for process in psutil.process_iter(["cmdline", "cwd"])
            if str(self.home) in (process.info["cwd"] or "")
        ]
        return [path.name for path in self.home.iterdir()] + running


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def key(path: Path) -> Path:
    program = shutil.which("ssh-keygen")
    assert program is not None
    command = [program, "-q", "-t", "ed25519", "-N", "", "-f", str(path)]
    subprocess.run(command, check=True, timeout=60)
    return path


def wait_for(condition: object, seconds: float = 15) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():  # type: ignore[operator]
            return True
        time.sleep(0.05)
    return False


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def server(tmp_path: Path, need_sshd: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    folder = tmp_path / "sshd"
    folder.mkdir()
    home = folder / "home"
    home.mkdir()
    host, user = key(folder / "host"), key(folder / "user")
    port = free_port()
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    (folder / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {host}\nAuthorizedKeysFile {user}.pub\n"
        f"PidFile none\nUsePAM no\nStrictModes no\nPasswordAuthentication no\n"
        f"KbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n"
        f"SetEnv TMPDIR={home}\n"
    )
    public = host.with_suffix(".pub").read_text()
    (folder / "known").write_text(f"[127.0.0.1]:{port} {public}")
    configuration = folder / "ssh_config"
    configuration.write_text(
        f"IdentityFile {user}\nIdentitiesOnly yes\nIdentityAgent none\n"
        f"UserKnownHostsFile {folder / 'known'}\nStrictHostKeyChecking yes\n"
    )
    monkeypatch.setenv(SSH_CONFIG, str(configuration))
    process = subprocess.Popen(
        [need_sshd, "-D", "-q", "-f", str(folder / "sshd_config"), "-E", str(folder / "log")]
    )
    assert wait_for(lambda: answers(port)), (folder / "log").read_text()
    made = Server(f"ssh://{getpass.getuser()}@127.0.0.1:{port}", home, configuration, process)
    yield made
    if process.poll() is None:
        made.kill()


def test_a_run_over_ssh_gives_the_bits_of_a_local_one_and_cleans_up(
    server: Server, compiled: Artefact, images: NDArray[np.float32]
) -> None:
    device = parse_device(server.url)
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
    assert len(done.step_ns or ()) == len(compiled.manifest["steps"])
    for fact in ("architecture", "cpu", "cores", "system", "features"):
        assert done.facts[fact] == here.facts[fact]
    assert device.remote
    assert not device.emulated
    assert server.leftovers() == []


def test_check_and_bench_take_the_device(server: Server, compiled: Artefact) -> None:
    checked = check_against_onnx(compiled, parse_device(server.url))
    assert checked.equal
    assert {layer.name for layer in checked.layers} >= {"embedding", "logits"}

    timed = bench(compiled, BenchOptions(device=server.url, runs=30, threads=1))

    assert timed.runs == 30
    assert timed.baseline is None
    assert timed.ratio is None
    assert "the baselines run on this machine only, so there is no ratio" in timed.warnings
    assert timed.machine["conditions"].keys() == {"before", "after"}
    with pytest.raises(VitcError, match="peaks of this machine"):
        bench(compiled, BenchOptions(device=server.url, profile=True))
    assert server.leftovers() == []


def test_bench_warns_of_throttling_there(
    server: Server, compiled: Artefact, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = SshDevice.run

    def hot(*arguments: Any) -> DeviceRun:
        done = run(*arguments)
        state = {"before": {"throttle_events": 1}, "after": {"throttle_events": 2}}
        return replace(done, facts={**done.facts, "conditions": state, "cores": 1})

    monkeypatch.setattr(SshDevice, "run", hot)
    timed = bench(compiled, BenchOptions(device=server.url, runs=30, threads=2, baseline=None))

    assert timed.warnings.count("the processor was throttled during the runs") == 1
    assert "2 threads share 1 cores" in timed.warnings


def test_a_folder_behind_the_host_is_where_the_files_go(
    server: Server, compiled: Artefact, images: NDArray[np.float32], tmp_path: Path
) -> None:
    folder = tmp_path / "an other place"
    device = SshDevice.parse(server.url)
    elsewhere = SshDevice(device.destination, device.port, str(folder))

    with pytest.raises(VitcError, match=r"no connection.*an other place"):
        elsewhere.run(compiled, images, RunRequest())
    folder.mkdir()
    done = elsewhere.run(compiled, images, RunRequest())

    np.testing.assert_array_equal(done.logits, compiled(images))
    assert list(folder.iterdir()) == []


def test_a_run_that_takes_too_long_is_stopped_there(
    server: Server, compiled: Artefact, images: NDArray[np.float32]
) -> None:
    with pytest.raises(VitcError, match=r"took longer than 1 s and was stopped"):
        parse_device(server.url).run(compiled, images, RunRequest(repeat=1_000_000, timeout_s=1))
    assert server.leftovers() == []


def test_a_failing_runner_gives_its_message(server: Server, compiled: Artefact) -> None:
    wrong = np.zeros((1, 3, 8, 8), np.float32)
    with pytest.raises(VitcError, match="the model wants 3 x 12 x 12"):
        parse_device(server.url).run(compiled, wrong, RunRequest())
    assert server.leftovers() == []


def test_a_lost_connection_is_an_error_and_leaves_nothing(
    server: Server, compiled: Artefact, images: NDArray[np.float32]
) -> None:
    running = []

    def cut() -> None:
        running.append(wait_for(lambda: any("vitc-run" in entry for entry in server.leftovers())))
        server.kill()

    cutter = threading.Thread(target=cut)
    cutter.start()
    started = time.monotonic()
    with pytest.raises(VitcError, match=r"connection to ssh://.* was lost"):
        parse_device(server.url).run(compiled, images, LONG)
    cutter.join()

    assert running == [True]
    assert time.monotonic() - started < 40
    assert wait_for(lambda: server.leftovers() == []), server.leftovers()


def test_a_killed_vitc_leaves_nothing(
    server: Server, compiled: Artefact, images: NDArray[np.float32], tmp_path: Path
) -> None:
    np.save(tmp_path / "x.npy", images)
    program = (
        "import numpy, sys\nfrom vitc.devices import RunRequest, parse_device\n"
        "from vitc.runtime import Artefact\n"
        "request = RunRequest(repeat=1_000_000)\n"
        "images = numpy.load(sys.argv[3])\n"
        "parse_device(sys.argv[1]).run(Artefact.open(sys.argv[2]), images, request)"
    )
    given = [server.url, str(compiled.path), str(tmp_path / "x.npy")]
    process = subprocess.Popen([sys.executable, "-c", program, *given])
    try:
        assert wait_for(lambda: any("vitc-run" in entry for entry in server.leftovers()), 30)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert wait_for(lambda: server.leftovers() == []), server.leftovers()


def test_a_wrong_key_is_an_error_at_once_and_names_the_next_step(
    server: Server, compiled: Artefact, tmp_path: Path
) -> None:
    wrong = key(tmp_path / "wrong")
    text = server.configuration.read_text()
    user = server.configuration.parent / "user"
    server.configuration.write_text(text.replace(f"IdentityFile {user}", f"IdentityFile {wrong}"))

    started = time.monotonic()
    with pytest.raises(VitcError, match=r"Permission denied.*keys and the agent only"):
        parse_device(server.url).supports(compiled)
    assert time.monotonic() - started < 15


def test_an_unknown_host_key_is_not_accepted(server: Server, compiled: Artefact) -> None:
    (server.configuration.parent / "known").write_text("")
    with pytest.raises(VitcError, match=r"Host key verification failed.*by hand"):
        parse_device(server.url).supports(compiled)


def test_a_server_that_is_not_there_is_an_error(server: Server, compiled: Artefact) -> None:
    server.kill()
    with pytest.raises(VitcError, match="Connection refused"):
        parse_device(server.url).supports(compiled)


def test_a_machine_of_another_architecture_is_refused_before_anything_is_copied(
    server: Server, compiled: Artefact
) -> None:
    foreign = "arm" if compiled.target.machine[0] == "x86_64" else "x86"
    manifest = {**compiled.manifest, "target": {"name": foreign}}
    with pytest.raises(VitcError, match=f"the artefact is for {foreign}"):
        parse_device(server.url).supports(Artefact(compiled.path, manifest))


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
