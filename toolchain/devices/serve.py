"""Servers for `rpc://` devices, bound to this machine unless told otherwise.

TVM's RPC has neither password nor encryption: whoever reaches the port runs any code as this user.
"""

from __future__ import annotations

import contextlib
import getpass
import multiprocessing
import os
import platform
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from vitc.devices.tvm_runtime import runtime_alone
from vitc.errors import VitcError
from vitc.extras import need

__all__ = ["ServeOptions", "TrackerOptions", "serve", "track"]

LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
_ALL: Final = ("", "0.0.0.0", "::")  # noqa: S104 - named, not bound to
_LOOK_EVERY_MS: Final = 500
_GRACE_S: Final = 5.0
"""In which a session ends by itself when its client is gone."""
_DANGER: Final = (
    "whoever reaches that port can run any code as this user; there is no password and no "
    "encryption"
)


@dataclass(frozen=True)
class TrackerOptions:
    """How to hand out a farm of devices.

    Attributes:
        host: Address to bind to.
        port: To bind to.
        expose: Whether `host` may be reached from other machines.
    """

    host: str = "127.0.0.1"
    port: int = 9190
    expose: bool = False

    def __post_init__(self) -> None:
        _refuse_exposure(self.host, self.port, self.expose)


@dataclass(frozen=True)
class ServeOptions:
    """How to serve this machine as a device.

    Attributes:
        host: Address to bind to.
        port: To bind to.
        key: Kind of device, for a tracker; or what a client has to name.
        tracker: ``host:port`` of a tracker to register with; None for none.
        expose: Whether `host` may be reached from other machines.
    """

    host: str = "127.0.0.1"
    port: int = 9090
    key: str = ""
    tracker: str | None = None
    expose: bool = False

    def __post_init__(self) -> None:
        _refuse_exposure(self.host, self.port, self.expose)
        if self.tracker is not None and not self.key:
            raise VitcError("A tracker wants to know the kind of device.", "Add --key rpi4.")
        if len(self.key.split()) > 1 or ":" in self.key:
            raise VitcError(f"{self.key!r} is no key.", "Use letters, digits and dashes.")
        _ = self.tracker_address

    @property
    def tracker_address(self) -> tuple[str, int] | None:
        """Host and port of the tracker."""
        if self.tracker is None:
            return None
        host, _, port = self.tracker.rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 1 << 16:
            raise VitcError(f"{self.tracker!r} is no tracker.", "Write host:port.")
        return host, int(port)


def serve(options: ServeOptions, say: Callable[[str], None] = lambda _: None) -> None:
    """Serve this machine until the process is interrupted.

    Args:
        options: Where and as what.
        say: Told how to reach it.

    Raises:
        VitcError: If the port is taken, or a package is missing.
    """
    need("Serving this machine", "farm")
    with runtime_alone():
        from tvm import rpc

        _start(
            lambda: rpc.Server(
                options.host,
                options.port,
                options.port + 1,
                key=options.key,
                tracker_addr=options.tracker_address,
                server_init_callback=_survive_crashes,
            ),
            options.host,
            options.port,
            lambda: say(_how_to_reach(options)),
        )


def track(options: TrackerOptions, say: Callable[[str], None] = lambda _: None) -> None:
    """Hand out devices until the process is interrupted.

    Args:
        options: Where.
        say: Told how to reach it.

    Raises:
        VitcError: If the port is taken, or a package is missing.
    """
    need("A tracker", "farm")
    reach = f"{options.host}:{options.port}"
    with runtime_alone():
        from tvm.rpc.tracker import Tracker

        _start(
            lambda: Tracker(options.host, port=options.port, port_end=options.port + 1),
            options.host,
            options.port,
            lambda: say(
                f"tracker at {reach}; boards register with\n"
                f"  vitc device serve --key KIND --tracker {reach}\n"
                f"  vitc bench DIR --device 'rpc://{reach}?key=KIND&tracker=1'"
            ),
        )


def _start(make: Callable[[], Any], host: str, port: int, ready: Callable[[], None]) -> None:
    try:
        server = make()
    except Exception as error:  # TVM wraps what its child process raised
        said = str(error).strip().splitlines()
        raise VitcError(
            f"Cannot listen at {host}:{port}: {said[-1] if said else type(error).__name__}.",
            "Choose another --port, or for --host an address of this machine.",
        ) from error
    # Without this a `kill` would leave the server process behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        ready()
        server.proc.join()
    finally:
        server.terminate()


def _how_to_reach(options: ServeOptions) -> str:
    query = f"?key={options.key}" if options.key else ""
    lines = [f"serving at {options.host}:{options.port}"]
    if options.host in LOOPBACK:
        who = f"{getpass.getuser()}@{platform.node()}"
        lines += [
            "on the machine that has vitc:",
            f"  ssh -N -L {options.port}:127.0.0.1:{options.port} {who}",
        ]
        host = "127.0.0.1"
    else:
        lines += [f"warning: {_DANGER}"]
        host = platform.node() if options.host in _ALL else options.host
    if options.tracker is not None:
        host, port = options.tracker_address or (host, options.port)
        lines += [f"  vitc bench DIR --device 'rpc://{host}:{port}{query}&tracker=1'"]
    else:
        lines += [f"  vitc bench DIR --device 'rpc://{host}:{options.port}{query}'"]
    return "\n".join(lines)


def _refuse_exposure(host: str, port: int, expose: bool) -> None:
    if not 0 < port < 1 << 16:
        raise VitcError(f"{port} is no port.", "Choose one from 1024 to 65535.")
    if host not in LOOPBACK and not expose:
        raise VitcError(
            f"Binding to {host} is dangerous: {_DANGER}.",
            "Leave --host away and use the ssh tunnel that is printed; or add --expose, in a "
            "network in which you trust every machine.",
        )


@contextlib.contextmanager
def _ended_with_its_client(connection: socket.socket) -> Iterator[None]:
    """End the session in a block, a child of this process, when its client is gone.

    TVM's server sees that between calls only, so a library that hangs would keep the board.
    """
    over = threading.Event()

    def watch() -> None:
        gone = select.poll()
        gone.register(connection, select.POLLRDHUP)
        while not gone.poll(_LOOK_EVERY_MS):
            if over.is_set():
                return
        sessions = multiprocessing.active_children()
        if not over.wait(_GRACE_S):
            for session in sessions:
                session.kill()

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _survive_crashes() -> None:
    """Let the server, in whose process this runs, outlive a session that dies of a signal.

    TVM's server stops listening, without ending, after a library crashed in a session.
    """
    from tvm.rpc import server

    serving = server._serving

    def keep_serving(connection: Any, *arguments: Any) -> None:
        before = os.getcwd()  # noqa: PTH109 - for chdir
        try:
            with _ended_with_its_client(connection):
                serving(connection, *arguments)
        except RuntimeError as error:
            server.logger.warning("%s", error)
            os.chdir(before)
            with contextlib.suppress(OSError):
                connection.close()

    server._serving = keep_serving
