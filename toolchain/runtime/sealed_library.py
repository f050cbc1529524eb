"""A private copy of a compiled model's library, which nobody can change while it runs.

The dynamic loader knows a library by its path and inode, so a library compiled again under the same
name would be the old one, and one that is overwritten in place changes under the code that runs. So
what is mapped is a copy: sealed memory (memfd_create(2), F_ADD_SEALS of fcntl(2)), or where there
is none a file without a name.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import os
import tempfile
import weakref
from _ctypes import dlclose  # ctypes offers no other way to unload a library
from pathlib import Path
from typing import Final

from vitc.errors import VitcError

__all__ = ["SealedLibrary"]

_NOT_A_PROGRAM: Final = 8  # MFD_NOEXEC_SEAL of Linux 6.3: the file is mapped, never started
_SEALS: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_AGAIN: Final = "Compile the model again, or copy the whole folder again."


class SealedLibrary:
    """A library of which this process has a copy; it is mapped when `functions` is first asked for.

    Args:
        path: The library.
        sha256: What its bytes must come to, hexadecimal; the bytes that are checked are the ones
            that run.

    Raises:
        VitcError: If it cannot be read, was changed, or there is no place for the copy.
    """

    def __init__(self, path: Path, sha256: str) -> None:
        self._path = path
        self._functions: ctypes.CDLL | None = None
        try:
            data = path.read_bytes()
        except OSError as error:
            raise VitcError(f"{path} cannot be read: {error.strerror or error}.", _AGAIN) from error
        if hashlib.sha256(data).hexdigest() != sha256:
            raise VitcError(
                f"{path} was changed or compiled again since the artefact was opened.",
                "Open the folder again.",
            )
        self._file = _sealed_memory(data)
        self._data = data if self._file is None else b""
        if self._file is not None:
            weakref.finalize(self, os.close, self._file)

    @property
    def functions(self) -> ctypes.CDLL:
        """The library, mapped.

        Raises:
            VitcError: If the system does not map it.
        """
        if self._functions is None:
            self._functions = self._map()
            # Before the file is closed, whose number is the name that the loader knows; not at the
            # end of the process, when a thread may still run it.
            weakref.finalize(self, dlclose, self._functions._handle).atexit = False
        return self._functions

    def _map(self) -> ctypes.CDLL:
        reason = ""
        if self._file is not None:
            try:
                return ctypes.CDLL(f"/proc/self/fd/{self._file}")
            except OSError as error:
                reason = str(error)
        data = self._data if self._file is None else _contents(self._file)
        tried = []
        for folder in dict.fromkeys((tempfile.gettempdir(), str(self._path.parent.resolve()))):
            try:
                return _map_unnamed(data, folder)
            except OSError as error:
                reason = str(error)
                tried.append(folder)
        raise VitcError(
            f"{self._path} cannot be loaded: {reason.rstrip('.')}.",
            f"A copy of it was tried in {' and '.join(tried)}: if they are full or mounted noexec, "
            "set TMPDIR to a folder that may hold programs; else compile the model again.",
        )


def _sealed_memory(data: bytes) -> int | None:
    """A file in memory that can no longer be written to, or None if there is no such thing here."""
    if not hasattr(os, "memfd_create"):
        return None
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        try:
            file = os.memfd_create("libvitc_model.so", flags | _NOT_A_PROGRAM)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            file = os.memfd_create("libvitc_model.so", flags)
    except OSError:
        return None
    try:
        with open(file, "wb", closefd=False) as stream:
            stream.write(data)
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, _SEALS)
    except OSError:
        os.close(file)
        return None
    return file


def _contents(file: int) -> bytes:
    with open(file, "rb", closefd=False) as stream:
        stream.seek(0)
        return stream.read()


def _map_unnamed(data: bytes, folder: str) -> ctypes.CDLL:
    """Map a library from a file that loses its name at once."""
    with tempfile.TemporaryDirectory(prefix="vitc-library-", dir=folder) as private:
        copy = Path(private) / "libvitc_model.so"
        copy.write_bytes(data)
        return ctypes.CDLL(str(copy))
