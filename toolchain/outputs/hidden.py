"""Hidden names beside an output, and what a run that was killed left under them.

A name is shared with nobody: it holds a random number. Whoever writes an output holds its lock, so
what lies under such a name while the lock is free belongs to a run that is no more.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
from pathlib import Path
from typing import Final

__all__ = ["hidden_name", "left_over", "lock_name", "sweep"]

_LONGEST: Final = 200
"""Bytes of a name that leave room for what is added, where names end at 255."""


def lock_name(path: Path) -> Path:
    """The file whose lock is held while `path` is written."""
    return path.with_name(f".{_stem(path)}.vitc-lock")


def hidden_name(path: Path) -> Path:
    """A name for `path` while it is made, which nothing else has."""
    return path.with_name(f".{_stem(path)}.{secrets.token_hex(8)}.vitc-part")


def left_over(path: Path) -> list[Path]:
    """What lies under hidden names of `path`: of dead runs only, if its lock is held."""
    ours = re.compile(rf"\.{re.escape(_stem(path))}\.[0-9a-f]{{16}}\.vitc-part")
    return [entry for entry in path.parent.iterdir() if ours.fullmatch(entry.name)]


def sweep(path: Path) -> None:
    """Remove what dead runs left; the lock of `path` is held."""
    for entry in left_over(path):
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)


def _stem(path: Path) -> str:
    name = os.fsencode(path.name)
    return path.name if len(name) <= _LONGEST else hashlib.sha256(name).hexdigest()
