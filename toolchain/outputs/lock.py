"""One writer an output: a lock that the system lets go when its process ends, however it ends."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from vitc.errors import VitcError
from vitc.outputs.hidden import lock_name

__all__ = ["locked"]

_NO_LOCKS: Final = frozenset((errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL))
"""What a file system says that knows no locks."""

_held: Final[set[int]] = set()


def _forget() -> None:
    """Close the locks in a forked child, which would hold them for longer than its parent."""
    for handle in _held:
        os.close(handle)
    _held.clear()


os.register_at_fork(after_in_child=_forget)


@contextmanager
def locked(path: Path, named: Path) -> Iterator[bool]:
    """Hold the lock of an output.

    Args:
        path: The output, links followed; its folder exists.
        named: What to call it.

    Yields:
        Whether the file system knows locks: where it does not, two may write at once.

    Raises:
        VitcError: If another run, or this one under another option, holds it.
        OSError: If its folder cannot be written to.
    """
    file = lock_name(path)
    handle, works = _acquire(file, named)
    _held.add(handle)
    owner = os.getpid()
    try:
        yield works
    finally:
        if os.getpid() == owner:
            # Removed while it is held: whoever opened it meanwhile sees that it is no more.
            with suppress(OSError):
                file.unlink(missing_ok=True)
            _held.discard(handle)
            os.close(handle)


def _acquire(file: Path, named: Path) -> tuple[int, bool]:
    while True:
        handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            current = _is(handle, file)
        except BlockingIOError as error:
            raise _taken(handle, named) from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                os.close(handle)
                raise
            return handle, False
        if current:
            os.truncate(handle, 0)
            os.pwrite(handle, str(os.getpid()).encode(), 0)
            return handle, True
        os.close(handle)


def _is(handle: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), file.lstat())
    except FileNotFoundError:
        return False


def _taken(handle: int, named: Path) -> VitcError:
    owner = os.pread(handle, 32, 0).decode("ascii", "replace")
    os.close(handle)
    if owner == str(os.getpid()):
        return VitcError(f"Two outputs would have the name {named}.", "Give each its own.")
    process = f" (process {owner})" if owner.isdecimal() else ""
    return VitcError(
        f"Another run of vitc{process} is writing {named}.",
        "Wait until it is done, or choose another name.",
    )
