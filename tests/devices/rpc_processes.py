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
        with_children = os.getpgid(self.process.pid)
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(with_children, signal.SIGKILL)
            self.process.wait()


@pytest.fixture(scope="session")
def start_rpc() -> Iterator[Callable[..., Command]]:
    started: list[Command] = []

    def run(*arguments: str) -> Command:
        started.append(Command(*arguments))
        return started[-1]

    yield run
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


def wait_until_registered(port: int, key: str) -> None:
    """Wait until a tracker knows a device."""
    from tvm import rpc  # slow to import, and this file is read for every test

    def known() -> bool:
        listed = rpc.connect_tracker("127.0.0.1", port).summary()["server_info"]
        return f"server:{key}" in [entry["key"] for entry in listed]

    assert wait_for(known, HANG_S)
