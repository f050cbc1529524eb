"""Giving a finished output its name, in one step that survives a loss of power."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path
from typing import Final

__all__ = ["exchange", "rename_new", "sync"]

_HERE: Final = -100
"""AT_FDCWD of Linux."""

_NEW, _EXCHANGE = 1, 2
"""RENAME_NOREPLACE and RENAME_EXCHANGE."""

_UNKNOWN: Final = frozenset((errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EPERM))
"""What a file system says that cannot do that."""


def rename_new(made: Path, place: Path) -> None:
    """Give a file or a folder a name that nothing has.

    Raises:
        FileExistsError: If something has it.
    """
    if _rename(made, place, _NEW):
        return
    if not made.is_dir():
        try:
            place.hardlink_to(made)
        except OSError as error:
            if error.errno not in _UNKNOWN:
                raise
        else:
            made.unlink()
            return
    if os.path.lexists(place):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(place))
    made.rename(place)


def exchange(one: Path, other: Path) -> bool:
    """Let two folders change names at once; false where the system cannot."""
    return _rename(one, other, _EXCHANGE)


def sync(path: Path) -> None:
    """Have a file on the disk, or the names in a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _rename(one: Path, other: Path, how: int) -> bool:
    function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if function is None:
        return False
    first, second = (ctypes.c_char_p(os.fsencode(path)) for path in (one, other))
    if function(_HERE, first, _HERE, second, ctypes.c_uint(how)) == 0:
        return True
    code = ctypes.get_errno()
    if code in _UNKNOWN:
        return False
    raise OSError(code, os.strerror(code), str(one), None, str(other))
