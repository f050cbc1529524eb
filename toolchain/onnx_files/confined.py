"""ONNX Runtime on a graph that nobody vouches for: in a process of its own, which may be ended.

A file of a few bytes can ask for terabytes or for years, and what a graph costs cannot be told from
its text: shapes are computed as it runs. So it runs where memory and processor time are limited,
by the operating system; a crash of the runtime is an error like any other, too. One process serves
all sessions, so only the first one waits for it to start, and not even that one after `start`.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vitc.errors import VitcError
from vitc.onnx_files import confined_worker
from vitc.onnx_files.confined_worker import receive, send

__all__ = ["ConfinedSession", "opening", "start"]

Array = npt.NDArray[Any]

MEMORY: Final = 2_000_000_000
"""Bytes for anything."""

MEMORY_IMAGE: Final = 256_000_000
"""Bytes more for each image of a run; a traced deit-base takes 160 MB."""

MEMORY_MODEL: Final = 8
"""Bytes more for each byte of the file: packed weights are unpacked once."""

SECONDS: Final = 10
"""Processor time for anything."""

SECONDS_IMAGE: Final = 5
"""Processor time more for each image."""

MODEL_BYTES_SECOND: Final = 500_000
"""Bytes of a file for which opening it may take a second more: a packed deit-base takes 20."""

_WAIT: Final = 4
"""How much longer than its processor time a busy machine may take."""


@dataclass(frozen=True)
class _Value:
    name: str
    shape: list[int | str | None]
    type: str = ""


class _Worker:
    """The other process."""

    def __init__(self) -> None:
        self.closed: deque[int] = deque()
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(Path(confined_worker.__file__))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # Each arena of the C library reserves address space, which is what is limited.
            env={**os.environ, "MALLOC_ARENA_MAX": "2"},
        )

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(
        self, header: dict[str, Any], arrays: Sequence[Array], memory: int, seconds: int
    ) -> tuple[dict[str, Any], list[Array]]:
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise VitcError("The process of ONNX Runtime has no pipes.")
        with self._lock:
            timer = threading.Timer(_WAIT * seconds, self._process.kill)
            timer.start()
            try:
                closed = [self.closed.popleft() for _ in range(len(self.closed))]
                limits = {"memory": memory, "seconds": seconds, "closed": closed}
                send(stdin, header | limits, arrays)
                reply, results = receive(stdout)
            except (EOFError, OSError) as error:
                self._process.kill()
                self._process.wait()
                raise VitcError(
                    f"ONNX Runtime did not survive the model: it crashed, or took more than "
                    f"{seconds} s of processor time.",
                    "If the file is yours, export it again from its checkpoint.",
                ) from error
            finally:
                timer.cancel()
        if "error" in reply:
            raise _RefusedError(reply["error"], memory)
        return reply, results


class _RefusedError(VitcError):
    def __init__(self, reason: str, memory: int) -> None:
        short = any(word in reason for word in ("bad_alloc", "allocate", "MemoryError", "Broken"))
        within = f" within {memory / 1e9:.1f} GB" if short else ""
        super().__init__(
            f"ONNX Runtime refuses the model{within}: {reason}",
            "Export it again from its checkpoint.",
        )


_shared: _Worker | None = None
_starting: Final = threading.Lock()
_numbers = itertools.count()


def _worker() -> _Worker:
    global _shared
    with _starting:
        if _shared is None or not _shared.alive:
            _shared = _Worker()
        return _shared


def start() -> None:
    """Let the process start while something else is done, such as importing PyTorch."""
    _worker()


class ConfinedSession:
    """A session like ONNX Runtime's, elsewhere.

    Args:
        model: A model that holds everything, serialized.
        threads: Threads inside an operator.

    Raises:
        VitcError: If ONNX Runtime refuses the model, crashes, or goes beyond a limit.
    """

    def __init__(self, model: bytes, threads: int = 1) -> None:
        self._number = next(_numbers)
        self._bytes = len(model)
        self._worker = _worker()
        weakref.finalize(self, self._worker.closed.append, self._number)
        reply, _ = self._worker.ask(
            {"do": "open", "session": self._number, "threads": threads},
            [np.frombuffer(model, np.uint8)],
            MEMORY + MEMORY_MODEL * self._bytes,
            SECONDS + self._bytes // MODEL_BYTES_SECOND,
        )
        self._inputs = [_Value(*entry) for entry in reply["inputs"]]
        self._outputs = [_Value(name, []) for name in reply["outputs"]]

    def get_inputs(self) -> list[_Value]:
        """The inputs, each with `name`, `shape` and `type`."""
        return self._inputs

    def get_outputs(self) -> list[_Value]:
        """The outputs, each with `name`."""
        return self._outputs

    def run(self, names: Sequence[str] | None, feed: Mapping[str, Array]) -> list[Array]:
        """Compute outputs.

        Args:
            names: Which; None for all.
            feed: Input name to array; the first axis counts images.

        Raises:
            VitcError: As above.
        """
        images = max((array.shape[0] for array in feed.values() if array.ndim), default=1)
        wanted = [value.name for value in self._outputs] if names is None else list(names)
        _, results = self._worker.ask(
            {"do": "run", "session": self._number, "inputs": list(feed), "outputs": wanted},
            list(feed.values()),
            MEMORY + MEMORY_MODEL * self._bytes + MEMORY_IMAGE * images,
            SECONDS + SECONDS_IMAGE * images,
        )
        return results


def opening(model: bytes, threads: int = 1) -> Future[ConfinedSession]:
    """Open a session while something else is done; the result raises what `ConfinedSession` does.

    Args:
        model: As of `ConfinedSession`.
        threads: As of `ConfinedSession`.
    """
    opened: Future[ConfinedSession] = Future()

    def work() -> None:
        try:
            opened.set_result(ConfinedSession(model, threads))
        except Exception as error:  # whatever it is, it belongs to whoever wants the session
            opened.set_exception(error)

    # Nobody has to wait for it to end: with this process its own ends, too.
    threading.Thread(target=work, daemon=True).start()
    return opened
