"""A machine behind a TVM RPC server, or one of a farm behind a tracker.

The peer is trusted: it gets the library, and TVM reads what it sends.
"""

from __future__ import annotations

import json
import select
import socket
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final
from urllib.parse import parse_qsl, urlsplit

from vitc.devices.device import DeviceRun, Inputs, RunRequest
from vitc.devices.remote import TRANSFER_S
from vitc.devices.rpc_client import CONNECTED, REQUEST
from vitc.devices.runner import input_files, output_files, read_run, save_inputs
from vitc.errors import VitcError
from vitc.extras import need
from vitc.places import scratch_folder
from vitc.runtime.arrays import bind_inputs
from vitc.runtime.trace import traced_bytes

if TYPE_CHECKING:
    from vitc.runtime.artefact import Artefact

__all__ = ["SYNTAX", "RpcDevice", "last_words", "next_line", "no_profile"]

SYNTAX: Final = "rpc://host:port[?key=K&tracker=1&wait=SECONDS]"
_WAIT_S: Final = 600.0
_PROBE_S: Final = 5.0
_TRACKER_MAGIC: Final = struct.pack("<i", 0x2F271)  # of tvm.rpc.base
_SWITCH: Final = {"0": False, "1": True}


@dataclass(frozen=True)
class RpcDevice:
    """Uploads the library, loads it with the TVM runtime there and times it with time_evaluator.

    Attributes:
        host: Of the server or tracker.
        port: Of the server or tracker.
        key: Kind of device that a tracker hands out, or the key of a server; empty for none.
        tracker: Whether it is a tracker; None to ask it.
        wait_s: Seconds to wait for a device that others use.
    """

    host: str
    port: int
    key: str = ""
    tracker: bool | None = None
    wait_s: float = _WAIT_S
    emulated: bool = False
    remote: bool = True

    @classmethod
    def parse(cls, text: str) -> RpcDevice:
        """The device of a URL.

        Raises:
            VitcError: If it is no such URL.
        """
        try:
            url = urlsplit(text)
            asked = dict(parse_qsl(url.query, strict_parsing=True)) if url.query else {}
            wait = float(asked.get("wait", _WAIT_S))
            tracker = _SWITCH[asked["tracker"]] if "tracker" in asked else None
            key = asked.get("key", "")
            unknown = asked.keys() - {"key", "tracker", "wait"} or url.username
            if url.path.strip("/"):
                raise VitcError(
                    f"{text} names the boards of a farm, which `vitc bench` and `vitc check` take.",
                    "Name one kind for a single run: rpc://host:port?key=rpi4&tracker=1.",
                )
            if unknown or not url.hostname or not url.port or not 0 < wait < 1e6 or key.split()[1:]:
                raise ValueError
        except (ValueError, KeyError) as error:
            raise VitcError(f"{text!r} is no RPC device.", f"Write {SYNTAX}.") from error
        if tracker and not key:
            raise VitcError(
                f"{text!r} names a tracker and no kind of device.", "Add its key: &key=rpi4."
            )
        return cls(url.hostname, url.port, key, tracker, wait)

    @property
    def name(self) -> str:
        """As a user writes it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"rpc://{host}:{self.port}{f'?key={self.key}' if self.key else ''}"

    def supports(self, artefact: Artefact) -> None:
        """Raise if nobody answers there; whether the artefact fits shows when it is loaded."""
        del artefact
        need(f"The device {self.name}", "farm")
        self.is_tracker()

    def run(self, artefact: Artefact, inputs: Inputs, request: RunRequest) -> DeviceRun:
        """See `vitc.devices.Device.run`; the time is that of TVM's time_evaluator there."""
        if request.profile:
            raise no_profile()
        if request.pin:
            raise VitcError(
                "TVM's runtime calls the library there, so no thread is pinned over RPC.",
                "Leave --pin away, or run it over ssh or adb.",
            )
        seconds = ceil(request.timeout_s)
        with scratch_folder("rpc") as folder:
            entry = artefact.entry
            arrays = bind_inputs(inputs, entry.inputs)
            save_inputs(artefact, arrays, folder)
            wanted = {
                "host": self.host,
                "port": self.port,
                "key": self.key,
                "tracker": self.is_tracker(),
                "timeout_s": seconds,
                "library": str(artefact.library.resolve()),
                "architecture": artefact.target.machine[0],
                "batch": artefact.batch,
                "images": arrays.images,
                "inputs": [
                    {"file": name, "per_image": port.per_image}
                    for name, port in zip(input_files(artefact), entry.inputs, strict=True)
                ],
                "outputs": [
                    {
                        "file": name,
                        "shape": port.sizes(artefact.batch, arrays.n),
                        "dtype": port.dtype,
                        "per_image": port.per_image,
                    }
                    for name, port in zip(output_files(artefact), entry.outputs, strict=True)
                ],
                "bytes": traced_bytes(entry, arrays.n),
                "entry": artefact.manifest.entries.index(entry),
                "threads": request.threads,
                "repeat": request.repeat,
                "warmup": request.warmup,
                "trace": request.trace,
            }
            (folder / REQUEST).write_text(json.dumps(wanted))
            output = self._talk(folder, seconds)
            done = read_run(artefact, request, arrays, output, folder)
        machine = json.loads(output.strip().splitlines()[-1])["machine"]
        return replace(done, facts={**machine, **done.facts})

    def _talk(self, folder: Path, seconds: float) -> str:
        """Run the client; its output."""
        command = [sys.executable, "-m", "vitc.devices.rpc_client", str(folder)]
        with tempfile.TemporaryFile() as errors:
            process = subprocess.Popen(
                command, bufsize=0, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors
            )
            try:
                if next_line(process, self.wait_s, CONNECTED) is None:
                    raise self._busy()
                started = time.monotonic()
                output, _ = process.communicate(timeout=seconds + TRANSFER_S)
            except subprocess.TimeoutExpired as error:
                raise self._too_long(seconds) from error
            finally:
                process.kill()
                process.wait()
            if process.returncode:
                # The server ends the session then, whatever TVM makes of that here.
                if time.monotonic() - started >= seconds:
                    raise self._too_long(seconds)
                raise self._failed(last_words(errors))
        return output.decode(errors="replace")

    def _too_long(self, seconds: float) -> VitcError:
        return VitcError(
            f"The run on {self.name} took longer than {seconds:g} s and was stopped.",
            "Run fewer images, or a smaller model, on this device.",
        )

    def _busy(self) -> VitcError:
        return VitcError(
            f"{self.name} was not free within {self.wait_s:g} s.",
            "Somebody else uses it, or its server hangs; wait longer with wait=SECONDS in the URL, "
            "or see `python -m tvm.exec.query_rpc_tracker`.",
        )

    def _failed(self, reason: str) -> VitcError:
        return VitcError(
            f"{self.name} failed: {reason}.",
            "See what its server printed, and `vitc targets` for what fits which machine.",
        )

    def is_tracker(self) -> bool:
        """Ask who answers there.

        Raises:
            VitcError: If nobody does.
        """
        try:
            with socket.create_connection((self.host, self.port), _PROBE_S) as probe:
                if self.tracker is not None or not self.key:
                    return bool(self.tracker)
                # A tracker returns the greeting; a server closes, or is busy and says nothing.
                try:
                    probe.sendall(_TRACKER_MAGIC)
                    return probe.recv(4) == _TRACKER_MAGIC
                except OSError:
                    return False
        except OSError as error:
            raise VitcError(
                f"Nobody answers at {self.name}: {error.strerror or error}.", self._how_to_start()
            ) from error

    def _how_to_start(self) -> str:
        tracker = "`vitc device tracker`"
        server = "`vitc device serve` there, and the ssh tunnel that it prints here"
        if self.tracker:
            return f"Start {tracker} there, or the ssh tunnel to it here."
        if self.tracker is None and self.key:
            return f"Start {server}; if it is a tracker's port, {tracker}."
        return f"Start {server}."


def next_line(process: subprocess.Popen[bytes], seconds: float, begin: str) -> str | None:
    """Wait for a line of a client that is ours, whatever a library prints between.

    Args:
        process: The client; its output is unbuffered.
        seconds: How long to wait.
        begin: What the line begins with.

    Returns:
        The line; empty at the end of a client that failed, None if it is still silent.
    """
    stream, deadline = process.stdout, time.monotonic() + seconds
    while stream is not None and (left := deadline - time.monotonic()) > 0:
        if select.select([stream], [], [], left)[0]:
            line = stream.readline()
            if not line or line.startswith(begin.encode()):
                return line.decode(errors="replace")
    return None


def last_words(errors: IO[bytes]) -> str:
    """Why a client failed, of what it wrote to its standard error."""
    errors.seek(0)
    said = errors.read().decode(errors="replace").strip().splitlines()
    return said[-1].removesuffix(".") if said else "its client died"


def no_profile() -> VitcError:
    """The error of asking for the time of each step."""
    return VitcError(
        "TVM's time_evaluator times whole runs, so there is no profile over RPC.",
        "Run it over ssh or adb, or on the device itself.",
    )
