"""Runs the artefact's runner on another machine, by way of a shell there.

One connection, the lease, is open as long as the files lie on the other machine: it makes a
temporary folder and then reads its input. When that ends, because the run is over, this process
died or the network is gone, it kills the runner and removes the folder. Whatever the network does,
both end there after the stated time by `timeout`.
"""

from __future__ import annotations

import os
import select
import shlex
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from vitc.devices.device import DeviceRun, RunRequest
from vitc.devices.machine import Machine, describe_cpu
from vitc.devices.runner import INPUT, OUTPUT, TRACE, raise_failure, read_run, runner_arguments
from vitc.errors import VitcError
from vitc.places import scratch_folder

if TYPE_CHECKING:
    from vitc.runtime.artefact import Artefact

__all__ = ["CONNECT_S", "TRANSFER_S", "Link", "run_remotely", "supports_remotely"]

CONNECT_S: Final = 20.0
"""Seconds in which a connection has to stand."""

TRANSFER_S: Final = 300.0
"""Seconds that copying files to or from the other machine may take."""

_CLOSE_S: Final = 10.0
_FOLDER: Final = "vitc-folder:"
_EXIT: Final = "vitc-exit:"
_STOPPED: Final = (124, 137, 143)  # what the timeouts of coreutils, toybox and busybox give
_NOT_STARTED: Final = 126  # as shells have it
_SIGNAL: Final = 128  # and this plus the number of a signal
_LEASE: Final = """
umask 077
trap '' HUP PIPE
echo "system=$(uname -s) $(uname -r)"
echo "architecture=$(uname -m)"
# nproc heeds variables of OpenMP.
echo "cores=$(unset OMP_NUM_THREADS OMP_THREAD_LIMIT; nproc 2>/dev/null)"
echo "governor=$(cat /sys/devices/system/cpu/cpu0/cpufreq/scaling_governor 2>/dev/null)"
echo "load=$(cat /proc/loadavg 2>/dev/null)"
cat /proc/cpuinfo 2>/dev/null
folder=$(mktemp -d {base}/vitc.XXXXXXXX) || exit 1
echo "{marker}$folder"
limit=
if timeout 5 true </dev/null >/dev/null 2>&1; then limit='timeout {seconds}'; fi
$limit cat >/dev/null
if [ -f "$folder/pid" ]; then kill $(cat "$folder/pid") 2>/dev/null; fi
rm -rf "$folder"
"""
_NAMED: Final = ("system=", "architecture=", "cores=", "governor=", "load=")
_RUN: Final = """
cd {folder} || exit 1
chmod 700 vitc-run || exit 1
limit=
if timeout 5 true </dev/null >/dev/null 2>&1; then limit='timeout {seconds}'; fi
$limit ./vitc-run {arguments} </dev/null &
echo $! >pid
wait $!
code=$?
rm -f pid
exit $code
"""


class Link(Protocol):
    """A way to another machine.

    Attributes:
        name: As a user writes it behind ``--device``.
        base: Folder there, as a shell writes it, in which the temporary folder is made.
    """

    @property
    def name(self) -> str:
        """As a user writes it behind ``--device``."""

    @property
    def base(self) -> str:
        """Folder for the temporary folder, as a shell writes it."""

    def lease(self, script: str, scratch: Path) -> list[str]:
        """The command that runs a script there, as long as its own input is open.

        Args:
            script: Text of a POSIX shell.
            scratch: A folder of this machine for as long as the lease.
        """

    def shell(self, script: str, scratch: Path) -> list[str]:
        """The command that runs a script there, while the lease is open."""

    def push(self, local: Path, remote: PurePosixPath, scratch: Path) -> list[str]:
        """The command that copies a file there; one that reads the file as its input is fine."""

    def pull(self, remote: PurePosixPath, local: Path, scratch: Path) -> list[str]:
        """The command that copies a file here; if it writes none, its output is the file."""

    def hint(self, said: str) -> str:
        """What to do about a connection that did not come about, given what its program said."""


@dataclass(frozen=True)
class _Session:
    """An open lease."""

    link: Link
    folder: PurePosixPath
    scratch: Path
    facts: Machine

    def execute(self, script: str, timeout_s: float) -> tuple[int, str, str]:
        """Run a script there; its exit code, output and errors."""
        command = self.link.shell(f"({script}\n)\ncode=$?\necho\necho {_EXIT}$code", self.scratch)
        # The other machine stops by itself; the seconds on top are for its answer to arrive.
        code, said, errors = self._finish(command, timeout_s + _CLOSE_S)
        output, found, exit_code = said.rpartition(_EXIT)
        if not found or not exit_code.strip().isdigit():
            raise self.lost(f"exit code {code}", errors)
        return int(exit_code), output, errors

    def push(self, local: Path) -> None:
        """Copy a file into the folder."""
        with local.open("rb") as source:
            command = self.link.push(local, self.folder / local.name, self.scratch)
            code, said, errors = self._finish(command, TRANSFER_S, stdin=source)
        if code:
            raise self.lost(f"copying {local.name} failed", errors or said)

    def pull(self, name: str, folder: Path) -> None:
        """Copy a file from the folder into a folder of this machine."""
        streamed = folder / f"{name}.streamed"
        with streamed.open("wb") as target:
            command = self.link.pull(self.folder / name, folder / name, self.scratch)
            code, _, errors = self._finish(command, TRANSFER_S, stdout=target)
        if code:
            raise self.lost(f"fetching {name} failed", errors)
        if not (folder / name).exists():
            streamed.rename(folder / name)

    def lost(self, what: str, said: str) -> VitcError:
        """The error of a connection that broke."""
        lines = said.strip().splitlines()
        reason = f"{what}: {lines[-1].strip().removesuffix('.')}" if lines else what
        return VitcError(
            f"The connection to {self.link.name} was lost ({reason}).",
            "Check network and power of the device, and its free space, and run again; "
            "it removes its files and ends the run by itself.",
        )

    def _finish(
        self,
        command: Sequence[str],
        timeout_s: float,
        *,
        stdin: IO[bytes] | int = subprocess.DEVNULL,
        stdout: IO[bytes] | int = subprocess.PIPE,
    ) -> tuple[int, str, str]:
        try:
            done = subprocess.run(
                command,
                stdin=stdin,
                stdout=stdout,
                stderr=subprocess.PIPE,
                timeout=timeout_s,
                start_new_session=True,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise self.lost(f"no answer within {timeout_s:g} s", "") from error
        except OSError as error:
            raise _cannot_start(command[0], error) from error
        said = (done.stdout or b"").decode(errors="replace")
        return done.returncode, said, done.stderr.decode(errors="replace")


def run_remotely(
    link: Link, artefact: Artefact, inputs: NDArray[np.float32], request: RunRequest
) -> DeviceRun:
    """Copy runner, library and images to a temporary folder of another machine, and run there.

    Args:
        link: The way there.
        artefact: The artefact.
        inputs: float32 [B, 3, H, W].
        request: Threads, repeats, trace; the timeout is that of the run, without the copying.

    Raises:
        VitcError: If there is no connection, it is lost, or the runner fails or takes too long.
    """
    seconds = max(1, ceil(request.timeout_s))
    with (
        scratch_folder("remote") as scratch,
        _leased(link, scratch, seconds + 2 * TRANSFER_S) as session,
    ):
        folder = session.scratch
        np.save(folder / INPUT, np.ascontiguousarray(inputs, dtype=np.float32))
        _refuse_another(link, artefact, session.facts)
        for path in (artefact.runner, artefact.library, folder / INPUT):
            session.push(path)
        script = _RUN.format(
            folder=shlex.quote(str(session.folder)),
            seconds=seconds,
            arguments=shlex.join(runner_arguments(request, PurePosixPath())),
        )
        started = time.monotonic()
        code, output, errors = session.execute(script, request.timeout_s)
        if code in _STOPPED and time.monotonic() - started >= request.timeout_s:
            raise VitcError(
                f"The run on {link.name} took longer than {seconds} s and was stopped.",
                "Run fewer images, or a smaller model, on this device.",
            )
        if code == _NOT_STARTED:
            raise VitcError(
                f"{link.name} cannot start the runner for {artefact.target.name}: {_last(errors)}.",
                "If its temporary folder is mounted noexec, name another one behind the host, "
                "as in ssh://user@host/home/user.",
            )
        if code:
            raise_failure(_SIGNAL - code if code > _SIGNAL else code, errors)
        session.pull(OUTPUT, folder)
        if request.trace:
            session.pull(TRACE, folder)
        done = read_run(artefact, request, len(inputs), output, folder)
    return replace(done, facts={**session.facts.to_dict(), **done.facts})


def supports_remotely(link: Link, artefact: Artefact) -> None:
    """Raise the `VitcError` of a machine that is not there or of another architecture."""
    with (
        scratch_folder("remote") as scratch,
        _leased(link, scratch, CONNECT_S) as session,
    ):
        _refuse_another(link, artefact, session.facts)


def _refuse_another(link: Link, artefact: Artefact, facts: Machine) -> None:
    found, wanted = facts.architecture, artefact.target.machine
    # A 64-bit ARM kernel usually starts 32-bit programs too.
    if found not in wanted and not ("armv7l" in wanted and found == "aarch64"):
        raise VitcError(
            f"{link.name} is an {found} machine, the artefact is for {artefact.target.name}.",
            "Compile for it: see `vitc targets`.",
        )


@contextmanager
def _leased(link: Link, scratch: Path, seconds: float) -> Iterator[_Session]:
    script = _LEASE.format(base=link.base, marker=_FOLDER, seconds=ceil(seconds))
    command = link.lease(script, scratch)
    with tempfile.TemporaryFile() as said:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                start_new_session=True,
            )
        except OSError as error:
            raise _cannot_start(command[0], error) from error
        try:
            opened = _opened(process)
            if opened is None:
                process.kill()
                process.wait()
                said.seek(0)
                text = said.read().decode(errors="replace")
                raise VitcError(
                    f"There is no connection to {link.name}: "
                    f"{_last(text) or f'no answer within {CONNECT_S:g} s'}.",
                    link.hint(text),
                )
            folder, facts = opened
            yield _Session(link, folder, scratch, facts)
        finally:
            _close(process)


def _opened(process: subprocess.Popen[bytes]) -> tuple[PurePosixPath, Machine] | None:
    """What the lease says first, or None if the connection ended or does not answer."""
    output = process.stdout
    if output is None:
        return None
    deadline, said = time.monotonic() + CONNECT_S, b""
    while (left := deadline - time.monotonic()) > 0:
        if not select.select([output], [], [], left)[0]:
            break
        more = os.read(output.fileno(), 65536)
        if not more:
            break
        said += more
        # A login shell may print a greeting first.
        before, found, after = said.decode(errors="replace").partition(_FOLDER)
        if found and "\n" in after:
            return PurePosixPath(after.partition("\n")[0].strip()), _facts(before)
    return None


def _close(process: subprocess.Popen[bytes]) -> None:
    """End the lease: the other machine kills what runs and removes the folder."""
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()
    try:
        process.wait(_CLOSE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _facts(output: str) -> Machine:
    """Facts from what the lease printed first."""
    named = dict(line.split("=", 1) for line in output.splitlines() if line.startswith(_NAMED))
    cpu, features = describe_cpu(output)
    load, cores = named.get("load", "").split(), named.get("cores", "")
    return Machine(
        architecture=named.get("architecture", ""),
        cpu=cpu or named.get("architecture", ""),
        features=features,
        cores=int(cores) if cores.isdigit() else max(1, output.count("processor\t:")),
        governor=named.get("governor") or None,
        load=float(load[0]) if load else None,
        system=named.get("system", ""),
    )


def _cannot_start(program: str, error: OSError) -> VitcError:
    return VitcError(
        f"Cannot start {program}: {error.strerror or error}.",
        "Install it (`openssh-client` for ssh, `adb` for adb), or add it to PATH.",
    )


def _last(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1].strip().removesuffix(".") if lines else ""
