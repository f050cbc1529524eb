"""Tables that fit their terminal: what is too wide wraps between words, and no name is cut."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from vitc.cli.streams import printable

__all__ = ["Lines", "Rows", "plain", "table"]

_GAP: Final = 2
_LONGEST_WORD: Final = 32
"""Columns: a longer word, such as a path, may break anywhere."""


def plain(text: str, style: str = "") -> Text:
    """Text that is shown letter by letter: a bracket is no markup, a colon begins no emoji."""
    return Text(printable(text, keep="\n"), style)


def table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> Rows:
    """A table; columns whose name starts with ``>`` are aligned right."""
    return Rows(columns, rows)


class Rows:
    """Rows under headings; where they do not fit even with wrapped cells, a list of each row.

    Args:
        columns: Headings; ``>`` in front aligns a column right and keeps its cells in one line.
        rows: Cells.
    """

    def __init__(self, columns: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> None:
        self._right = [column.startswith(">") for column in columns]
        self._names = [column.removeprefix(">") for column in columns]
        self._rows = [
            [Text(printable(cell)) if isinstance(cell, str) else cell for cell in row]
            for row in rows
        ]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """See rich's console protocol."""
        widths = self._widths(options.max_width)
        if widths is None:
            yield from self._lists()
            return
        grid = Table(box=None, pad_edge=False, show_header=any(self._names))
        for name, right, width in zip(self._names, self._right, widths, strict=True):
            grid.add_column(
                Text(name), justify="right" if right else "left", overflow="fold", width=width
            )
        for row in self._rows:
            grid.add_row(*row)
        yield grid

    def _widths(self, available: int) -> list[int] | None:
        """Of the columns, or None if there is no room for their longest words."""
        widths, least = [], []
        for number, (name, right) in enumerate(zip(self._names, self._right, strict=True)):
            cells = [row[number] for row in self._rows]
            whole = max((cell.cell_len for cell in cells), default=0)
            words = max((_longest_word(cell) for cell in cells), default=0)
            heading = Text(name)
            widths.append(max(whole, heading.cell_len, 1))
            least.append(max(whole if right else words, _longest_word(heading), 1))
        excess = sum(widths) + _GAP * (len(widths) - 1) - available
        if excess > sum(widths) - sum(least):
            return None
        while excess > 0:
            # The widest of those that can give, so that none gets narrow beside a wide one.
            giving = (i for i in range(len(widths)) if widths[i] > least[i])
            widths[max(giving, key=widths.__getitem__)] -= 1
            excess -= 1
        return widths

    def _lists(self) -> Iterable[Text]:
        for row in self._rows:
            for number, (name, cell) in enumerate(zip(self._names, row, strict=True)):
                if not cell.plain:
                    continue
                indented = Text("  " if number else "")
                yield indented.append(f"{name}: " if number and name else "").append(cell)


def _longest_word(cell: Text) -> int:
    longest = max((Text(word).cell_len for word in cell.plain.split()), default=0)
    return min(longest, _LONGEST_WORD)


class Lines:
    """Rows that are printed as they come, before the next ones are known; none is wrapped.

    Args:
        columns: Headings; ``>`` in front aligns a column right.
        widths: What cells are filled up to, in columns of a terminal; a longer cell moves what
            follows it.
    """

    def __init__(self, columns: Sequence[str], widths: Sequence[int]) -> None:
        self._right = [column.startswith(">") for column in columns]
        names = [column.removeprefix(">") for column in columns]
        self._widths = [max(w, len(n)) for w, n in zip(widths, names, strict=True)]
        self.heading = self.row(names)

    def row(self, cells: Sequence[str]) -> str:
        """One line."""
        shown = []
        for cell, right, width in zip(cells, self._right, self._widths, strict=True):
            text = printable(cell)
            gap = " " * (width - cell_len(text))
            shown.append(gap + text if right else text + gap)
        return (" " * _GAP).join(shown).rstrip()
