"""Folders of vitc's own: a cache that outlives a run, and scratch folders that do not."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from vitc.errors import VitcError

__all__ = ["Cache", "find_cache", "full_disk", "scratch_folder"]

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


@dataclass(frozen=True)
class Cache:
    """Where vitc keeps what it can make again.

    Attributes:
        folder: Exists, and can be written.
        passed_over: Why it is not a place that comes before it; empty if it is the first.
    """

    folder: Path
    passed_over: str = ""


def find_cache() -> Cache:
    """The folder ``vitc`` in the user's cache folder, or in the temporary folder if that fails.

    As the XDG base directory specification has it, a variable that is no absolute path counts as
    absent.

    Raises:
        VitcError: If none can be written.
    """
    try:
        temporary = tempfile.gettempdir()
    except FileNotFoundError:
        temporary = ""
    return _find(os.environ.get("XDG_CACHE_HOME", ""), os.environ.get("HOME", ""), temporary)


@cache
def _find(stated: str, home: str, temporary: str) -> Cache:
    places = [("XDG_CACHE_HOME", Path(stated))] if Path(stated).is_absolute() else []
    if Path(home).is_absolute():
        places.append(("HOME", Path(home, ".cache")))
    if temporary:
        places.append(("TMPDIR", Path(temporary, f"vitc-{os.getuid()}")))
    reasons = []
    for variable, place in places:
        try:
            folder = _usable(place / "vitc")
            if variable == "TMPDIR" and place.lstat().st_uid != os.getuid():
                raise PermissionError(errno.EPERM, "it belongs to another user")
        except OSError as error:
            reasons.append(f"{place} ({variable}) cannot be written: {error.strerror or error}")
        else:
            return Cache(folder, "; ".join(reasons))
    raise VitcError(
        f"There is no place for a cache: {'; '.join(reasons) or 'no temporary folder'}.",
        "Set XDG_CACHE_HOME to a folder that can be written.",
    )


def _usable(folder: Path) -> Path:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as probe:
        probe.write(b"\0")
    return folder


@contextmanager
def scratch_folder(purpose: str) -> Iterator[Path]:
    """A temporary folder that vanishes afterwards.

    Args:
        purpose: Stands in its name.

    Raises:
        VitcError: If there is no place for it, or the disk is full.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=f"vitc-{purpose}-") as name:
            yield Path(name)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and error.filename is None:
            raise VitcError(
                "There is no temporary folder that can be written.",
                "Set TMPDIR to one that exists and has space.",
            ) from error
        if full_disk(error):
            raise VitcError(
                f"The temporary folder {tempfile.gettempdir()} is full.",
                "Free space there, or set TMPDIR to a folder that has more.",
            ) from error
        raise


def full_disk(error: OSError) -> bool:
    """Whether an error says that a disk is full."""
    # NumPy's own says only how much of an array it could write.
    return error.errno in _FULL or (error.errno is None and "requested and" in str(error))
