"""Every board of a farm at once, behind a TVM RPC tracker.

The tracker knows boards by kind and hands one out for as long as a session lasts. So the work on a
board keeps one session, in a process of its own, and what is found is that board's alone.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from threading import Lock
from typing import Any, Final, Generic, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

from vitc.devices.remote import TRANSFER_S
from vitc.devices.rpc import RpcDevice, last_words, next_line
from vitc.devices.rpc_client import CONNECTED, REQUEST
from vitc.errors import VitcError
from vitc.extras import need
from vitc.places import scratch_folder

__all__ = ["SYNTAX", "Farm", "Finding", "is_farm", "on_every_board"]

Found = TypeVar("Found")

SYNTAX: Final = "rpc://tracker[:port]/KIND*[?wait=SECONDS&limit=SECONDS]"
_PORT: Final = 9190  # of `vitc device tracker`
_LISTING_S: Final = 180.0
_LIMIT_S: Final = 3600.0
_MOST_S: Final = 1e6
_SESSION_S: Final = 24 * 3600
"""After which a board ends a session whose client is there and asks for nothing."""


def is_farm(text: str) -> bool:
    """Whether the text behind ``--device`` names boards of a farm."""
    kind, _, rest = text.partition("://")
    return kind == "rpc" and bool(rest.partition("?")[0].partition("/")[2])


@dataclass(frozen=True)
class Farm:
    """Boards of some kinds behind a tracker.

    Attributes:
        name: As a user writes it behind ``--device``.
        host: Of the tracker.
        port: Of the tracker.
        kinds: Pattern of kinds, as a shell's.
        wait_s: Seconds to wait for boards that others use.
        limit_s: Seconds that a board may work, all its runs together.
    """

    name: str
    host: str
    port: int
    kinds: str
    wait_s: float
    limit_s: float = _LIMIT_S

    @classmethod
    def parse(cls, text: str) -> Farm:
        """The farm of a URL.

        Raises:
            VitcError: If it is no such URL.
        """
        try:
            url = urlsplit(text)
            asked = dict(parse_qsl(url.query, strict_parsing=True)) if url.query else {}
            wait = float(asked.pop("wait", RpcDevice.wait_s))
            limit = float(asked.pop("limit", _LIMIT_S))
            kinds = unquote(url.path.removeprefix("/"))
            port = _PORT if url.port is None else url.port
            if asked or url.username or not url.hostname or not port:
                raise ValueError
            if not all(0 < seconds < _MOST_S for seconds in (wait, limit)):
                raise ValueError
            if not kinds or "/" in kinds or len(kinds.split()) > 1 or url.fragment:
                raise ValueError
        except ValueError as error:
            raise VitcError(f"{text!r} names no boards of a farm.", f"Write {SYNTAX}.") from error
        return cls(text, url.hostname, port, kinds, wait, limit)

    def reach(self) -> None:
        """Raise if there is no such farm, or it has no such board."""
        self.listed()

    def listed(self) -> Mapping[str, Sequence[str]]:
        """Kinds that fit, each with the addresses of its boards.

        Raises:
            VitcError: If nobody answers there or it is no tracker, or no kind fits.
        """
        need(f"The farm {self.name}", "farm")
        RpcDevice(self.host, self.port, tracker=True).is_tracker()
        command = [sys.executable, "-m", "vitc.devices.rpc_boards", self.host, str(self.port)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_LISTING_S, check=True
            )
            every = json.loads(done.stdout.splitlines()[-1])
        except (subprocess.SubprocessError, ValueError, IndexError) as error:
            raise VitcError(
                f"{self.host}:{self.port} does not say which boards it has.",
                "Name a tracker, `vitc device tracker`; a single server is rpc://host:port.",
            ) from error
        fitting: dict[str, list[str]] = defaultdict(list)
        for kind, host, port in sorted(every):
            if fnmatchcase(kind, self.kinds):
                fitting[kind].append(f"{host}:{port}")
        if not fitting:
            known = ", ".join(sorted({kind for kind, *_ in every})) or "none"
            raise VitcError(
                f"The tracker at {self.host}:{self.port} has no board {self.kinds!r}; it has "
                f"{known}.",
                "Start `vitc device serve --key KIND --tracker HOST:PORT` on the boards.",
            )
        return fitting


@dataclass(frozen=True)
class Finding(Generic[Found]):
    """What came of the work on a board.

    Attributes:
        kind: Of the board, as the tracker knows it.
        address: ``host:port`` of its server.
        found: What the work has found; None if it failed.
        error: Why it failed; None if it did not.
    """

    kind: str
    address: str
    found: Found | None
    error: VitcError | None

    @property
    def board(self) -> str:
        """The board, for people."""
        return f"{self.kind} at {self.address}"


@dataclass(eq=False)
class _Client:
    """A process that has a session with a board; `left_s` of its time are left."""

    process: subprocess.Popen[bytes]
    errors: Any
    limit_s: float
    left_s: float = field(init=False)

    def __post_init__(self) -> None:
        self.left_s = self.limit_s


@dataclass(frozen=True)
class _Board(RpcDevice):
    """A board that is ours.

    While it works, others may use what they share with it: `idle` is let go and taken again.
    """

    address: str = ""
    client: _Client | None = None
    idle: Lock | None = None

    @property
    def name(self) -> str:
        """See `Finding.board`."""
        return f"{self.key} at {self.address}"

    def supports(self, artefact: Any) -> None:
        """Nothing: somebody is there, and whether the artefact fits shows when it is loaded."""

    def is_tracker(self) -> bool:
        """It is one of a tracker's."""
        return True

    def _talk(self, folder: Path, seconds: float) -> str:
        if self.client is None or self.idle is None:
            raise self._failed("it is not ours")
        process = self.client.process
        if process.stdin is None:
            raise self._failed("its client takes no runs")
        began, allowed = time.monotonic(), seconds + TRANSFER_S
        self.idle.release()
        try:
            process.stdin.write(f"{json.dumps(str(folder))}\n".encode())
            process.stdin.flush()
            line = next_line(process, min(allowed, self.client.left_s), "{")
        except OSError:
            line = ""
        finally:
            self.idle.acquire()
        if line is None:
            process.kill()  # nothing else ends what never answers
            if allowed <= self.client.left_s:
                raise self._too_long(seconds)
            raise VitcError(
                f"{self.name} was not done within {self.client.limit_s:g} s and was let go.",
                "Look what its library does there, or allow more: limit=SECONDS in the URL.",
            )
        self.client.left_s -= time.monotonic() - began
        if not line:
            raise self._failed(last_words(self.client.errors))
        if "error" in (said := json.loads(line)):
            raise self._failed(str(said["error"]).removesuffix("."))
        return line


def on_every_board(
    farm: Farm, work: Callable[[RpcDevice], Found], say: Callable[[str], None] = lambda _: None
) -> list[Finding[Found]]:
    """Do something on every board of a farm, on all at once.

    What is done here is done for one board after the other; only while a board works do others get
    their turn. A board that fails or vanishes does not keep the others from being reported.

    Args:
        farm: Its boards.
        work: Called for each, with a device that is that board's; what it raises is kept.
        say: Told what is being done.

    Returns:
        One finding a board, by kind and address.

    Raises:
        VitcError: If there is no such farm, or it has no such board.
    """
    listed = farm.listed()
    kinds = [kind for kind, addresses in listed.items() for _ in addresses]
    here, ours, clients = Lock(), set[str](), list[subprocess.Popen[bytes]]()
    done: list[str] = []

    def one(kind: str) -> Finding[Found]:
        address = ""
        try:
            with _held(farm, kind, here, clients) as board, here:
                if board.address in ours:  # free again, and another of its kind is not
                    raise _not_handed_out(kind)
                ours.add(board.address)
                address = board.address
                return Finding(kind, address, work(board), None)
        except VitcError as error:
            return Finding(kind, address, None, error)
        finally:
            done.append(kind)
            say(f"{len(done)} of {len(kinds)} boards are done")

    say(f"{len(kinds)} boards")
    with ThreadPoolExecutor(len(kinds)) as pool:
        try:
            findings = list(pool.map(one, kinds))
        except BaseException:
            for process in clients:
                process.kill()
            raise
    left = {kind: [each for each in listed[kind] if each not in ours] for kind in listed}
    named = [each if each.address else _placed(each, left[each.kind]) for each in findings]
    return sorted(named, key=lambda each: (each.kind, each.address))


def _placed(finding: Finding[Found], left: list[str]) -> Finding[Found]:
    """A board that was never ours: which of its kind it must have been."""
    return replace(finding, address=left.pop(0) if left else "an address of its own")


def _not_handed_out(kind: str) -> VitcError:
    return VitcError(
        f"A board {kind} was listed and not handed out: it has vanished, or somebody else uses it.",
        "Look for it with `python -m tvm.exec.query_rpc_tracker`.",
    )


@contextmanager
def _held(
    farm: Farm, kind: str, idle: Lock, clients: list[subprocess.Popen[bytes]]
) -> Iterator[_Board]:
    """A board of a kind, ours as long as the block lasts."""
    wanted = _Board(farm.host, farm.port, kind, True, farm.wait_s, address="its address", idle=idle)
    request = {
        "host": farm.host,
        "port": farm.port,
        "key": kind,
        "tracker": True,
        "timeout_s": _SESSION_S,
        "hold": True,
    }
    with scratch_folder("farm") as folder, tempfile.TemporaryFile() as errors:
        (folder / REQUEST).write_text(json.dumps(request))
        process = subprocess.Popen(
            [sys.executable, "-m", "vitc.devices.rpc_client", str(folder)],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
        clients.append(process)
        try:
            line = next_line(process, farm.wait_s, CONNECTED)
            if line is None:
                raise _not_handed_out(kind)
            if not line:
                raise wanted._failed(last_words(errors))
            address = line.removeprefix(CONNECTED).strip()
            yield replace(wanted, address=address, client=_Client(process, errors, farm.limit_s))
        finally:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()
