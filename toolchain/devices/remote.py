"""Runs the artefact's runner on another machine, by way of a shell there.

One connection, the lease, is open as long as the files lie on the other machine: it makes a
temporary folder and then reads its input. When that ends, because the run is over, this process
died or the network is gone, it kills the runner and removes the folder. Whatever the network does,
both end there after the stated time by `timeout`.

The script of a command reaches the other machine through a login shell of any kind (sh, csh, fish)
that may print before or after. So a script is one line without single quotes and backslashes, and
what it prints stands behind a mark that is new for each run; a file also has its length there.
"""

from __future__ import annotations

import os
import re
import secrets
import select
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import ceil
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Final, Protocol

from vitc.devices.device import DeviceRun, Inputs, RunRequest
from vitc.devices.machine import Machine, describe_cpu
from vitc.devices.runner import (
    TRACE,
    input_files,
    output_files,
    raise_failure,
    read_run,
    runner_arguments,
    save_inputs,
)
from vitc.errors import VitcError
from vitc.places import scratch_folder
from vitc.runtime.arrays import bind_inputs

if TYPE_CHECKING:
    from vitc.runtime.artefact import Artefact

__all__ = [
    "CONNECT_S",
    "TRANSFER_S",
    "Link",
    "quote_remotely",
    "run_remotely",
    "supports_remotely",
]

CONNECT_S: Final = 20.0
"""Seconds in which a connection has to stand."""

TRANSFER_S: Final = 300.0
"""Seconds that copying files to or from the other machine may take."""

_CLOSE_S: Final = 10.0
_GREETING: Final = 1 << 20  # bytes that a login shell may print before a file
_PLAIN: Final = re.compile(r"[A-Za-z0-9_./:@%+=,-]+")
_PLAIN_IN_QUOTES: Final = re.compile(r"[^\"$`\\!']+")
_STOPPED: Final = (124, 137, 143)  # what the timeouts of coreutils, toybox and busybox give
_NOT_STARTED: Final = 126  # as shells have it
_SIGNAL: Final = 128  # and this plus the number of a signal
_LIMIT: Final = (
    "limit=",
    'if timeout 5 true </dev/null >/dev/null 2>&1; then limit="timeout {seconds}"; fi',
)
_LEASE: Final = (
    "umask 077",
    'trap "" HUP PIPE',
    "echo {mark}facts",
    'echo "system=$(uname -s) $(uname -r)"',
    'echo "architecture=$(uname -m)"',
    # nproc heeds variables of OpenMP.
    'echo "cores=$(unset OMP_NUM_THREADS OMP_THREAD_LIMIT; nproc 2>/dev/null)"',
    'echo "governor=$(cat /sys/devices/system/cpu/cpu0/cpufreq/scaling_governor 2>/dev/null)"',
    'echo "load=$(cat /proc/loadavg 2>/dev/null)"',
    "cat /proc/cpuinfo 2>/dev/null",
    "folder=$(mktemp -d {base}/vitc.XXXXXXXX) || exit 1",
    'echo {mark}folder "$folder"',
    *_LIMIT,
    "$limit cat >/dev/null",
    'if [ -f "$folder/pid" ]; then kill $(cat "$folder/pid") 2>/dev/null; fi',
    'rm -rf "$folder"',
)
_NAMED: Final = ("system=", "architecture=", "cores=", "governor=", "load=")
_RUN: Final = (
    "cd {folder} || exit 1",
    "chmod 700 vitc-run || exit 1",
    *_LIMIT,
    # No `;` may stand behind `&`, and csh takes a `!` for its own unless a space follows.
    "$limit ./vitc-run {arguments} </dev/null & echo $! >pid",
    "wait $! ",
    "code=$?",
    "rm -f pid",
    "exit $code",
)


def quote_remotely(text: str) -> str:
    """Quote a word of a script, without single quotes where that is possible."""
    if _PLAIN.fullmatch(text):
        return text
    return f'"{text}"' if _PLAIN_IN_QUOTES.fullmatch(text) else shlex.quote(text)


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

    def push(self, local: Path, remote: PurePosixPath) -> list[str] | None:
        """The command that copies a file there; None if files go through the shell."""

    def pull(self, remote: PurePosixPath, local: Path) -> list[str] | None:
        """The command that copies a file here; None if files come through the shell."""

    def hint(self, said: str) -> str:
        """What to do about a connection that did not come about, given what its program said."""


@dataclass(frozen=True)
class _Mark:
    """A word that nothing else on the other machine prints."""

    nonce: str = field(default_factory=lambda: secrets.token_hex(8))

    def __str__(self) -> str:
        return f"vitc-{self.nonce}:"

    @property
    def written(self) -> str:
        """As a script writes it: a shell that shows its commands does not print the mark."""
        return f'vitc-""{self.nonce}:'


@dataclass(frozen=True)
class _Session:
    """An open lease; `mark` stands in front of each line that tells what follows."""

    link: Link
    folder: PurePosixPath
    scratch: Path
    facts: Machine
    mark: _Mark

    def execute(self, script: str, timeout_s: float) -> tuple[int, str, str]:
        """Run a script there; its exit code, output and errors."""
        mark = self.mark.written
        lines = (f"echo {mark}output", f"({script})", "code=$?", "echo", f"echo {mark}exit $code")
        command = self.link.shell("; ".join(lines), self.scratch)
        # The other machine stops by itself; the seconds on top are for its answer to arrive.
        code, said, errors = self._finish(command, timeout_s + _CLOSE_S)
        _, _, said = said.partition(f"{self.mark}output\n")
        output, found, exit_code = said.rpartition(f"{self.mark}exit ")
        exit_code = exit_code.partition("\n")[0]
        if not found or not exit_code.isdigit():
            raise self.lost(f"exit code {code}", errors)
        return int(exit_code), output, errors

    def push(self, local: Path) -> None:
        """Copy a file into the folder."""
        remote = self.folder / local.name
        copy = self.link.push(local, remote)
        place = quote_remotely(str(remote))
        script = f"cat >{place} && echo {self.mark.written}size $(wc -c <{place})"
        with local.open("rb") as source:
            command = self.link.shell(script, self.scratch) if copy is None else copy
            code, said, errors = self._finish(command, TRANSFER_S, stdin=source)
        if code:
            raise self.lost(f"copying {local.name} failed", errors or said)
        arrived = said.partition(f"{self.mark}size")[2].partition("\n")[0].strip()
        if copy is None and arrived != str(local.stat().st_size):
            raise self.lost(f"{arrived or 'no'} bytes of {local.name} arrived", errors)

    def pull(self, name: str, folder: Path) -> None:
        """Copy a file from the folder into a folder of this machine."""
        copy = self.link.pull(self.folder / name, folder / name)
        place = quote_remotely(str(self.folder / name))
        mark = self.mark.written
        script = f"size=$(wc -c <{place}) || exit 1; echo {mark}file $size; cat {place}"
        with (folder / f"{name}.streamed").open("w+b") as target:
            command = self.link.shell(script, self.scratch) if copy is None else copy
            code, _, errors = self._finish(command, TRANSFER_S, stdout=target)
            if code:
                raise self.lost(f"fetching {name} failed", errors)
            if copy is None:
                self._unpack(target, folder / name)

    def _unpack(self, streamed: IO[bytes], out: Path) -> None:
        """Take a file out of what came with it."""
        streamed.seek(0)
        before, found, rest = streamed.read(_GREETING).partition(f"{self.mark}file ".encode())
        line, end, _ = rest.partition(b"\n")
        if not found or not end or not line.strip().isdigit():
            raise self.lost(f"fetching {out.name} failed", before.decode(errors="replace"))
        size = int(line)
        streamed.seek(len(before) + len(found) + len(line) + len(end))
        with out.open("wb") as target:
            shutil.copyfileobj(streamed, target)
            arrived = target.tell()
            # A login shell may print something behind it too.
            target.truncate(size)
        if arrived < size:
            raise self.lost(f"{arrived} of {size} bytes of {out.name} arrived", "")

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


def run_remotely(link: Link, artefact: Artefact, inputs: Inputs, request: RunRequest) -> DeviceRun:
    """Copy runner, library and images to a temporary folder of another machine, and run there.

    Args:
        link: The way there.
        artefact: The artefact.
        inputs: As for `vitc.devices.Device.run`.
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
        arrays = bind_inputs(inputs, artefact.entry.inputs)
        save_inputs(artefact, arrays, folder)
        _refuse_another(link, artefact, session.facts)
        given = [folder / name for name in input_files(artefact)]
        for path in (artefact.runner, artefact.library, *given):
            session.push(path)
        script = "; ".join(_RUN).format(
            folder=quote_remotely(str(session.folder)),
            seconds=seconds,
            arguments=" ".join(
                map(quote_remotely, runner_arguments(artefact, request, PurePosixPath()))
            ),
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
        for name in output_files(artefact):
            session.pull(name, folder)
        if request.trace:
            session.pull(TRACE, folder)
        done = read_run(artefact, request, arrays, output, folder)
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
    mark = _Mark()
    script = "; ".join(_LEASE).format(base=link.base, mark=mark.written, seconds=ceil(seconds))
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
            output, silent = _first_output(process, f"{mark}folder ")
            _, _, found = output.partition(f"{mark}facts\n")
            facts, _, found = found.partition(f"{mark}folder ")
            folder, ended, _ = found.partition("\n")
            if not ended:
                process.kill()
                process.wait()
                said.seek(0)
                text = said.read().decode(errors="replace")
                # A login shell that refuses may say so on standard output.
                reason = _last(text) or ("" if silent else _last(output))
                raise VitcError(
                    f"There is no connection to {link.name}: "
                    f"{reason or f'no answer within {CONNECT_S:g} s'}.",
                    link.hint(text),
                )
            yield _Session(link, PurePosixPath(folder.strip()), scratch, _facts(facts), mark)
        finally:
            _close(process)


def _first_output(process: subprocess.Popen[bytes], wanted: str) -> tuple[str, bool]:
    """What a program prints up to the end of the line that begins with `wanted`, or until it ends.

    The second value is true if neither came within the time that a connection has to stand in.
    """
    output = process.stdout
    if output is None:
        return "", False
    deadline, said, text = time.monotonic() + CONNECT_S, b"", ""
    while (left := deadline - time.monotonic()) > 0:
        if not select.select([output], [], [], left)[0]:
            break
        more = os.read(output.fileno(), 65536)
        said += more
        text = said.decode(errors="replace")
        if not more or "\n" in text.partition(wanted)[2]:
            return text, False
    return text, True


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
