"""Where results and notes go: results to stdout, or as JSON to a file; all else to stderr."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table

__all__ = ["Output", "megabytes", "table"]

_STDOUT = "-"
_FILE_WIDTH = 200
_LOG_EVERY_S = 1.0


class Output:
    """The sink of one command.

    Args:
        json_to: A file for the JSON form of the result, ``-`` for stdout (and then nothing else
            goes there), or None.
    """

    def __init__(self, json_to: str | None = None) -> None:
        self._json_to = json_to
        # Without a terminal there is no width to fit, and a cut table is of no use in a file.
        width = None if sys.stdout.isatty() else _FILE_WIDTH
        self._out = Console(quiet=json_to == _STDOUT, highlight=False, width=width)
        self._err = Console(stderr=True, highlight=False)

    def show(self, *renderables: RenderableType) -> None:
        """Print results for people."""
        self._out.print(*renderables, sep="\n")

    def plain(self, text: str) -> None:
        """Print text to be copied as it is, at once."""
        self._out.print(text, markup=False, soft_wrap=True)
        sys.stdout.flush()

    @property
    def notes(self) -> Console:
        """Where progress goes: stderr."""
        return self._err

    def note(self, text: str) -> None:
        """Say something that is no result."""
        self._err.print(text, style="dim", markup=False)

    def result(self, document: Mapping[str, Any]) -> None:
        """Write the JSON form of the result where the user wants it."""
        if self._json_to is None:
            return
        text = json.dumps(document, indent=2) + "\n"
        if self._json_to == _STDOUT:
            sys.stdout.write(text)
            return
        path = Path(self._json_to)
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            part.write_text(text, encoding="utf-8")
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    @contextmanager
    def working(self, what: str) -> Iterator[Callable[[str], None]]:
        """Show on stderr what is being done; yields a function that changes the text."""
        with self._err.status(what) as status:
            last = time.monotonic()

            def say(text: str) -> None:
                nonlocal last
                status.update(text)
                # A log wants a line now and then, not one for every step of a counter.
                if not self._err.is_terminal and time.monotonic() - last > _LOG_EVERY_S:
                    last = time.monotonic()
                    self.note(text)

            if not self._err.is_terminal:
                self.note(what)
            yield say


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table; columns whose name starts with ``>`` are aligned right."""
    made = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for column in columns:
        made.add_column(
            column.removeprefix(">"), justify="right" if column.startswith(">") else "left"
        )
    for row in rows:
        made.add_row(*row)
    return made


def megabytes(size: float) -> str:
    """Bytes as MB (1e6 bytes), three digits or more."""
    return f"{size / 1e6:.3g} MB" if size < 1e8 else f"{size / 1e6:.1f} MB"
