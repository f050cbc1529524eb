"""Picture files below a folder, and a count of everything there that is left."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from vitc.models.picture import SUFFIXES

__all__ = ["PictureFiles", "counted", "find_pictures"]

_LISTED: Final = 8
BROKEN: Final = "broken links"


@dataclass(frozen=True)
class PictureFiles:
    """What a folder holds.

    Attributes:
        files: Pictures by their suffix, sorted by path.
        left: What else there is, and how often: suffixes, broken links, folders that cannot be
            read.
    """

    files: tuple[Path, ...]
    left: Mapping[str, int] = field(default_factory=dict)


def find_pictures(folder: Path, *, deep: bool = True) -> PictureFiles:
    """Find picture files.

    Hidden files and folders, whose names begin with a dot, are passed over. Links are followed,
    each folder is looked into once.

    Args:
        folder: Where to look.
        deep: Whether to look into folders below, at any depth.
    """
    left: Counter[str] = Counter()
    files = sorted(_below(folder, deep, left, set()))
    return PictureFiles(tuple(files), dict(left))


def counted(left: Mapping[str, int]) -> str:
    """What was left in words, such as ``3 .heic, 1 broken links``; the most frequent first."""
    ordered = sorted(left.items(), key=lambda entry: (-entry[1], entry[0]))
    shown = [f"{count} {what}" for what, count in ordered[:_LISTED]]
    rest = sum(count for _, count in ordered[_LISTED:])
    return ", ".join(shown + ([f"{rest} more"] if rest else []))


def _below(
    folder: Path, deep: bool, left: Counter[str], seen: set[tuple[int, int]]
) -> Iterator[Path]:
    try:
        facts = folder.stat()
        children = sorted(os.scandir(folder), key=lambda child: child.name)
    except OSError as error:
        left[f"folders ({(error.strerror or str(error)).lower()})"] += 1
        return
    if (facts.st_dev, facts.st_ino) in seen:
        return
    seen.add((facts.st_dev, facts.st_ino))
    for child in children:
        path = folder / child.name
        if child.name.startswith("."):
            continue
        try:
            inner, plain = child.is_dir(), child.is_file()
        except OSError:  # such as a link that leads to itself
            inner = plain = False
        if inner:
            if deep:
                yield from _below(path, deep, left, seen)
        elif not plain:
            left[BROKEN if child.is_symlink() else "special files"] += 1
        elif path.suffix.lower() in SUFFIXES:
            yield path
        else:
            left[path.suffix.lower() or "files without a suffix"] += 1
