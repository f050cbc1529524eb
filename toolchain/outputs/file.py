"""A file that vitc writes for a user."""

from __future__ import annotations

import io
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from vitc.errors import VitcError
from vitc.outputs.hidden import hidden_name, sweep
from vitc.outputs.lock import locked
from vitc.outputs.place import Place, explained, find_place, refuse_taken
from vitc.outputs.rename import rename_new, sync
from vitc.places import scratch_folder

__all__ = ["FileOutput", "check_file", "claim_file", "replace_file", "write_file"]


class FileOutput:
    """A claimed file. `claim_file` makes one.

    Attributes:
        named: As the user wrote it.
    """

    def __init__(self, place: Place, replace: bool) -> None:
        self.named = place.named
        self._place = place
        self._special = place.special  # as it was claimed: what comes later is in the way
        self._replace = replace

    def write(self, data: bytes | str) -> None:
        """Write all of it; what was there before is replaced at once.

        Args:
            data: Bytes, or text that is written as UTF-8.

        Raises:
            VitcError: If it cannot be written, or something else took the name meanwhile.
        """
        content = data.encode(errors="backslashreplace") if isinstance(data, str) else data
        if self._special:
            with explained(self.named):
                _write_through(self._place, io.BytesIO(content))
            return
        with self.aside() as part, explained(self.named):
            part.write_bytes(content)

    @contextmanager
    def aside(self) -> Iterator[Path]:
        """A file to fill, which becomes the output when the block ends; not if it raises.

        Raises:
            VitcError: As in `write`.
        """
        if self._special:
            with scratch_folder("out") as folder:
                part = folder / self.named.name
                yield part
                with explained(self.named), part.open("rb") as made:
                    _write_through(self._place, made)
            return
        part = hidden_name(self._place.path)
        try:
            with explained(self.named):
                # The mode is that of any new file, whoever fills it: safetensors puts a file that
                # its owner alone reads in its place.
                handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
                mode = stat.S_IMODE(os.fstat(handle).st_mode)
                os.close(handle)
            yield part
            with explained(self.named):
                part.chmod(mode)
                self._publish(part)
        finally:
            part.unlink(missing_ok=True)

    def _publish(self, part: Path) -> None:
        path, mode = self._place.path, self._place.mode
        sync(part)
        if mode is not None and not (stat.S_ISREG(mode) and self._replace):
            raise refuse_taken(self.named)
        if self._replace:
            part.replace(path)
        else:
            try:
                rename_new(part, path)
            except FileExistsError as error:
                raise refuse_taken(self.named) from error
            self._replace = True
        with suppress(OSError):
            sync(path.parent)


@contextmanager
def claim_file(named: str | os.PathLike[str], *, force: bool = False) -> Iterator[FileOutput]:
    """Make sure that a file can be written, before the work whose result goes there.

    Within the block no other run of vitc can claim it, and what a killed run left beside it is
    gone. Devices, pipes and open files are neither locked nor ever in the way.

    Args:
        named: The file; its folder exists.
        force: Whether an existing file may be replaced; it is when the new one is whole.

    Raises:
        VitcError: If the file exists, cannot be made there, or another run is writing it.
    """
    with explained(named):
        place = find_place(named)
        place.check()
    if place.special:
        yield FileOutput(place, replace=True)
        return
    _refuse(place, force)
    with ExitStack() as stack:
        with explained(named):
            if stack.enter_context(locked(place.path, place.named)):
                sweep(place.path)
        _refuse(place, force)
        yield FileOutput(place, force)


def check_file(named: str | os.PathLike[str], *, force: bool = False) -> None:
    """Raise what `claim_file` would raise now."""
    with claim_file(named, force=force):
        pass


def write_file(named: str | os.PathLike[str], data: bytes | str, *, force: bool = False) -> None:
    """Write a file whose content took no time to make.

    Args:
        named: The file; its folder exists.
        data: Bytes, or text that is written as UTF-8.
        force: Whether an existing file may be replaced.

    Raises:
        VitcError: As `claim_file` and `FileOutput.write`.
    """
    with claim_file(named, force=force) as output:
        output.write(data)


def replace_file(path: Path, data: bytes | str) -> None:
    """Write a file of vitc's own, such as a cache: the last one to write wins.

    Raises:
        VitcError: If it cannot be written.
    """
    FileOutput(Place(path, path), replace=True).write(data)


def _refuse(place: Place, force: bool) -> None:
    mode = place.mode
    if mode is not None and stat.S_ISDIR(mode):
        raise VitcError(f"{place.named} cannot be written: it is a folder.", "Name a file.")
    if mode is not None and not force:
        raise refuse_taken(place.named)


def _write_through(place: Place, content: BinaryIO) -> None:
    if place.descriptor is None:
        handle = os.open(place.path, os.O_WRONLY | os.O_TRUNC | os.O_NOCTTY)
    else:
        # What was printed so far comes first: the file may be standard output.
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        handle = os.dup(place.descriptor)
    with os.fdopen(handle, "wb") as stream:
        shutil.copyfileobj(content, stream)
