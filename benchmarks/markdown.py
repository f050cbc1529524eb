"""Markdown tables, and the sections of a document that scripts write."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

__all__ = ["replace_section", "table"]


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; columns whose name starts with ``>`` are aligned right."""
    names = [column.removeprefix(">") for column in columns]
    rules = ["--:" if column.startswith(">") else "---" for column in columns]
    return "\n".join("| " + " | ".join(row) + " |" for row in [names, rules, *rows])


def replace_section(document: Path, name: str, text: str) -> None:
    """Replace what stands between ``<!-- begin NAME -->`` and ``<!-- end NAME -->``.

    Raises:
        SystemExit: If the document has no such markers.
    """
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    before = document.read_text(encoding="utf-8")
    if not pattern.search(before):
        raise SystemExit(f"{document} has no section {name}: add the lines {begin} and {end}")
    after = pattern.sub(lambda _: f"{begin}\n{text}\n{end}", before)
    document.write_text(after, encoding="utf-8")
