"""What the name of an output stands for: links are followed, devices and descriptors recognised."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shlex
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vitc.errors import VitcError

__all__ = ["Place", "explained", "find_place", "refuse_taken"]

_MOST_LINKS: Final = 40
_DESCRIPTORS: Final = re.compile(r"/proc/(\d+)(/task/\d+)?/fd")
_ELSEWHERE: Final = "Choose another place."
_HINTS: Final = {
    errno.ENOENT: "Make its folder first.",
    errno.EACCES: "Choose a place that you may write to.",
    errno.EPERM: "Choose a place that you may write to.",
    errno.EROFS: "Choose a place that you may write to.",
    errno.ENOSPC: "Make room, or choose a place that has some.",
    errno.EDQUOT: "Make room, or choose a place that has some.",
    errno.ENAMETOOLONG: "Choose a shorter name.",
}


@dataclass(frozen=True)
class Place:
    """Where an output goes.

    Attributes:
        named: As the user wrote it.
        path: What it finally names, links followed; it need not exist.
        descriptor: An open file of this process that it names, such as ``/dev/stdout``.
    """

    named: Path
    path: Path
    descriptor: int | None = None

    @property
    def mode(self) -> int | None:
        """Kind and permissions of what is there; None if nothing is."""
        try:
            return self.path.lstat().st_mode
        except FileNotFoundError:
            return None

    @property
    def special(self) -> bool:
        """Whether it is written through: a device, a pipe, an open file of some process."""
        if self.descriptor is not None or _DESCRIPTORS.fullmatch(str(self.path.parent)):
            return True
        mode = self.mode
        return mode is not None and not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))

    def check(self) -> None:
        """Look whether it can be written, as far as that shows without writing.

        Raises:
            VitcError: If its folder is missing.
            OSError: If it cannot.
        """
        if self.descriptor is not None:
            if fcntl.fcntl(self.descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
                raise OSError(errno.EBADF, "it is open for reading only")
        elif self.special:
            if not os.access(self.path, os.W_OK):
                raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        elif not self.path.parent.is_dir():
            folder = self.path.parent
            raise VitcError(
                f"{self.named} cannot be written: there is no folder {folder}.",
                f"Make it first: mkdir -p {shlex.quote(str(folder))}",
            )


def find_place(named: str | os.PathLike[str]) -> Place:
    """Follow the links of a name one by one, the last of which may lead nowhere yet.

    Raises:
        OSError: If the links go round, or there is no current folder.
    """
    path = Path(named)
    for _ in range(_MOST_LINKS):
        if path.name in ("", ".", ".."):
            return Place(Path(named), Path(os.path.realpath(path)))
        folder = os.path.realpath(path.parent)
        place = Path(folder, path.name)
        opened = _DESCRIPTORS.fullmatch(folder)
        if opened is not None and path.name.isdecimal():
            own = int(opened[1]) == os.getpid()
            return Place(Path(named), place, int(path.name) if own else None)
        if not place.is_symlink():
            return Place(Path(named), place)
        path = Path(folder, place.readlink())
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))


def refuse_taken(named: Path) -> VitcError:
    """The error for an output that exists already and may not be replaced."""
    return VitcError(f"{named} exists already.", "Replace it with --force (force=True in Python).")


@contextmanager
def explained(named: str | os.PathLike[str], *also: type[Exception]) -> Iterator[None]:
    """Turn what the system says while `named` is written into a `VitcError`.

    Args:
        named: The output.
        also: Exceptions of the library that writes it.
    """
    kinds: tuple[type[Exception], ...] = (OSError, *also)
    try:
        yield
    except kinds as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        hint = _HINTS.get(getattr(error, "errno", None) or 0, _ELSEWHERE)
        raise VitcError(f"{os.fspath(named)} cannot be written: {reason}.", hint) from error
