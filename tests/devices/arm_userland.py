"""TVM's own RPC server in an emulated 64-bit ARM machine, alone and as a board of a farm."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.devices.rpc_processes import Command, wait_until_registered
from tests.devices.sshd import free_port, wait_for

KEY = "emulated-arm"


@dataclass
class Userland:
    """Devices of the emulated machine.

    Attributes:
        server: The server.
        farm: A tracker on this machine that hands out another server of the emulated machine.
    """

    server: str
    farm: str


@pytest.fixture(scope="session")
def arm_userland(
    need_userland: Path,
    need_emulator: Callable[[str], str],
    start_rpc: Callable[..., Command],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Userland]:
    folder = tmp_path_factory.mktemp("userland")
    tracker, alone, board = free_port(), free_port(), free_port()
    start_rpc("tracker", "--port", str(tracker))
    # The Python there finds its emulator on the path, where one that `make` unpacked need not be.
    emulators = str(Path(need_emulator("aarch64")).parent)
    place = os.environ | {"PATH": os.pathsep.join((emulators, os.environ.get("PATH", "")))}
    with ExitStack() as started:
        started.enter_context(_server(need_userland, place, folder / "alone", alone))
        of_farm = ("--tracker", f"127.0.0.1:{tracker}", "--key", KEY)
        started.enter_context(_server(need_userland, place, folder / "board", board, *of_farm))
        for log in ("alone", "board"):
            text = (folder / log).read_text
            assert wait_for(lambda text=text: "bind to" in text()), text()
        wait_until_registered(tracker, KEY)
        yield Userland(f"rpc://127.0.0.1:{alone}", f"rpc://127.0.0.1:{tracker}?key={KEY}&tracker=1")


@contextmanager
def _server(
    python: Path, place: Mapping[str, str], log: Path, port: int, *options: str
) -> Iterator[None]:
    # By default it looks for a port below 9199 only.
    where = ["--host", "127.0.0.1", "--port", str(port), "--port-end", str(port + 1)]
    with log.open("wb") as said:
        process = subprocess.Popen(
            [str(python), "-m", "tvm.exec.rpc_server", *where, *options],
            stdout=said,
            stderr=said,
            env=place,
            start_new_session=True,
        )
        try:
            yield
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
