"""A real TVM RPC server and tracker as processes, started by the command line on loopback."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.devices.sshd import HANG_S, free_port, wait_for


class Command:
    """A `vitc device ...` that runs until it is stopped; what it said first is in `said`."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "vitc.cli", "device", *arguments]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
        )
        watchdog = threading.Timer(HANG_S, self.stop)
        watchdog.start()
        assert self.process.stdout is not None
        self.said = ""
        while "--device" not in self.said:
            line = self.process.stdout.readline().decode()
            assert line, f"it ended: {self.said}"
            self.said += line
        watchdog.cancel()

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)  # its group: it began a session
            self.process.wait()


@pytest.fixture(scope="session")
def start_rpc() -> Iterator[Callable[..., Command]]:
    started: list[Command] = []

    def run(*arguments: str) -> Command:
        started.append(Command(*arguments))
        return started[-1]

    yield run
    for command in started:
        command.process.terminate()  # all at once: each takes its time
    for command in started:
        command.stop()


@pytest.fixture(scope="session")
def rpc_server(start_rpc: Callable[..., Command]) -> str:
    port = free_port()
    said = start_rpc("serve", "--port", str(port)).said
    assert f"ssh -N -L {port}:127.0.0.1:{port} " in said
    found = re.search(r"--device '(rpc://\S+)'", said)
    assert found is not None
    return found[1]


@pytest.fixture(scope="session")
def rpc_farm(start_rpc: Callable[..., Command]) -> str:
    port, board = free_port(), free_port()
    start_rpc("tracker", "--port", str(port))
    tracker = ("--tracker", f"127.0.0.1:{port}")
    said = start_rpc("serve", "--port", str(board), "--key", "board", *tracker).said
    found = re.search(r"--device '(rpc://\S+)'", said)
    assert found is not None
    assert found[1] == f"rpc://127.0.0.1:{port}?key=board&tracker=1"
    wait_until_registered(port, "board")
    return found[1]


def registered(port: int) -> list[str]:
    """Kinds of the devices that a tracker knows, one a device."""
    from tvm import rpc  # slow to import, and this file is read for every test

    listed = rpc.connect_tracker("127.0.0.1", port).summary()["server_info"]
    return [entry["key"].removeprefix("server:") for entry in listed]


def wait_until_registered(port: int, key: str, devices: int = 1) -> None:
    """Wait until a tracker knows so many devices of a kind."""
    assert wait_for(lambda: registered(port).count(key) >= devices, HANG_S)
