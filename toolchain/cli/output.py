"""Where results and notes go: results to stdout, or as JSON to a file; all else to stderr."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from enum import Enum, auto
from typing import Any, TextIO

from rich.console import Console
from rich.status import Status
from rich.text import Text

from vitc.cli.claims import claimed
from vitc.cli.tables import Rows, plain
from vitc.outputs import explained

__all__ = ["Loudness", "Output", "loudness", "megabytes", "set_loudness"]

_STDOUT = "-"
_NO_WIDTH = 1 << 16
_LOG_EVERY_S = 1.0


class Loudness(Enum):
    """How much a command says beside its results."""

    QUIET = auto()
    USUAL = auto()
    VERBOSE = auto()

    @classmethod
    def of(cls, *, quiet: bool, verbose: bool) -> Loudness:
        """What a person asked for."""
        return cls.QUIET if quiet else cls.VERBOSE if verbose else cls.USUAL


_loudness = Loudness.USUAL


def set_loudness(loudness: Loudness) -> None:
    """Set how much the command of this process says, before it makes its `Output`."""
    global _loudness
    _loudness = loudness


def loudness() -> Loudness:
    """How much the command of this process says."""
    return _loudness


class Output:
    """The sink of one command.

    Args:
        json_to: A file for the JSON form of the result, ``-`` for stdout (and then nothing else
            goes there), or None.
        force: Whether that file may be replaced.
        silent: Say nothing and write nothing: another process does.

    Raises:
        VitcError: If that file exists or cannot be written.
    """

    def __init__(
        self, json_to: str | None = None, *, force: bool = False, silent: bool = False
    ) -> None:
        if silent:
            json_to = None
        self._json_to = json_to
        named = None if json_to == _STDOUT else json_to
        self._json_file = None if named is None else claimed(named, force=force)
        self._out = _console(sys.stdout, quiet=silent or json_to == _STDOUT)
        self._err = _console(sys.stderr, quiet=silent or loudness() is Loudness.QUIET)
        self._working: Status | None = None

    @contextmanager
    def _uncovered(self) -> Iterator[None]:
        """Take away what `working` shows while results go to the same terminal."""
        status = self._working if self._out.is_terminal and self._err.is_terminal else None
        if status is not None:
            status.stop()
        yield
        if status is not None:
            status.start()

    def show(self, *results: str | Text | Rows) -> None:
        """Print results for people."""
        with self._uncovered():
            for result in results:
                self._out.print(plain(result) if isinstance(result, str) else result)

    def copyable(self, text: str) -> None:
        """Print text to be copied as it is, at once."""
        with self._uncovered():
            self._out.print(plain(text), soft_wrap=True)
            sys.stdout.flush()

    @property
    def notes(self) -> Console:
        """Where progress goes: stderr."""
        return self._err

    def note(self, text: str) -> None:
        """Say something that is no result."""
        self._err.print(plain(text, "dim"), soft_wrap=True)

    def next(self, *command: object) -> None:
        """Say which command comes next, unless a program reads the result.

        Args:
            command: Its words behind ``vitc``; those in capital letters are for the user to fill.
        """
        if self._json_to is None:
            self.note(f"next: vitc {shlex.join(map(str, command))}")

    def result(self, document: Mapping[str, Any]) -> None:
        """Write the JSON form of the result where the user wants it."""
        if self._json_to is None:
            return
        text = json.dumps(document, indent=2) + "\n"
        if self._json_to == _STDOUT:
            sys.stdout.write(text)
            return
        if self._json_file is not None:
            self._json_file.write(text)

    @contextmanager
    def result_list(self, name: str) -> Iterator[Callable[[Iterable[Mapping[str, Any]]], None]]:
        """As `result` for ``{name: [entries]}``, of entries that come one after the other.

        Args:
            name: Key of the list.

        Yields:
            A function that takes further entries.
        """
        if self._json_to is None:
            yield lambda _: None
            return
        with tempfile.TemporaryFile("w+", encoding="utf-8") as text:
            text.write(f"{{\n  {json.dumps(name)}: [")
            separator = "\n"

            def add(entries: Iterable[Mapping[str, Any]]) -> None:
                nonlocal separator
                for entry in entries:
                    text.write(separator + textwrap.indent(json.dumps(entry, indent=2), "    "))
                    separator = ",\n"

            yield add
            text.write("\n  ]\n}\n")
            text.seek(0)
            if self._json_to == _STDOUT:
                shutil.copyfileobj(text, sys.stdout)
                return
            if self._json_file is not None:
                with (
                    self._json_file.aside() as part,
                    explained(self._json_to),
                    part.open("w", encoding="utf-8") as target,
                ):
                    shutil.copyfileobj(text, target)

    @contextmanager
    def working(self, what: str) -> Iterator[Callable[[str], None]]:
        """Show on stderr what is being done; yields a function that changes the text."""
        spinner = "line" if self._err.options.ascii_only else "dots"
        with self._err.status(plain(what), spinner=spinner) as status:
            last = time.monotonic()
            self._working = status

            def say(text: str) -> None:
                nonlocal last
                status.update(plain(text))
                # A log wants a line now and then, not one for every step of a counter.
                every = 0 if loudness() is Loudness.VERBOSE else _LOG_EVERY_S
                if not self._err.is_terminal and time.monotonic() - last > every:
                    last = time.monotonic()
                    self.note(text)

            if not self._err.is_terminal:
                self.note(what)
            try:
                yield say
            finally:
                self._working = None


def megabytes(size: float) -> str:
    """Bytes as MB (1e6 bytes), three digits or more."""
    return f"{size / 1e6:.3g} MB" if size < 1e8 else f"{size / 1e6:.1f} MB"


def _console(stream: TextIO, *, quiet: bool = False) -> Console:
    # Without a terminal there is no width to fit, and folded names are of no use in a file.
    fits = stream.isatty() or "COLUMNS" in os.environ
    return Console(
        stderr=stream is sys.stderr,
        quiet=quiet,
        width=None if fits else _NO_WIDTH,
        highlight=False,
        markup=False,
        emoji=False,
    )
