"""A folder that vitc makes for a user."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from vitc.errors import VitcError
from vitc.outputs.hidden import hidden_name, left_over, sweep
from vitc.outputs.lock import locked
from vitc.outputs.place import Place, explained, find_place, refuse_taken
from vitc.outputs.rename import exchange, rename_new, sync

__all__ = ["FolderOutput", "check_folder", "claim_folder", "prepare_folder"]

_OLD: Final = "old"


class FolderOutput:
    """A claimed folder. `claim_folder` makes one.

    Attributes:
        named: As the user wrote it.
    """

    def __init__(self, place: Place, replace: bool) -> None:
        self.named = place.named
        self._path = place.path
        self._replace = replace

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A hidden folder beside the output, to make it in; gone when the block ends.

        Raises:
            VitcError: If it cannot be made.
        """
        folder = hidden_name(self._path)
        try:
            with explained(self.named):
                folder.mkdir()
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def publish(self, made: Path) -> None:
        """Give a folder that was made in `scratch` the name of the output.

        An old one leaves the name in the same moment.

        Raises:
            VitcError: If that fails, or something else took the name meanwhile.
        """
        with explained(self.named):
            for entry in [*made.rglob("*"), made]:
                sync(entry)
            with suppress(OSError):
                self._path.rmdir()  # one that is empty
            if self._replace and self._path.is_dir():
                self._exchange(made)
            else:
                try:
                    rename_new(made, self._path)
                except FileExistsError as error:
                    raise refuse_taken(self.named) from error
        with suppress(OSError):
            sync(self._path.parent)

    def _exchange(self, made: Path) -> None:
        if exchange(made, self._path):
            return
        # A kill between the two: the next run finds the old one and puts it back.
        old = made.parent / _OLD
        self._path.rename(old)
        try:
            made.rename(self._path)
        except BaseException:
            old.rename(self._path)
            raise


@contextmanager
def claim_folder(
    named: str | os.PathLike[str],
    *,
    marker: str,
    force: bool = False,
    parts: Callable[[Path], Collection[str]] | None = None,
) -> Iterator[FolderOutput]:
    """Make sure that a folder can be made, before the work whose result goes there.

    Within the block no other run of vitc can claim it, and what a killed run left beside it is
    gone. The folders above it are made.

    Args:
        named: The folder.
        marker: A file that such a folder holds: no other one is ever replaced, unless it is empty.
        force: Whether an existing one may be replaced; it is when the new one is whole.
        parts: Names of what such a folder holds of its own. One with more is not replaced, since
            somebody put that there; anything goes without it.

    Raises:
        VitcError: If it exists, cannot be made there, or another run is making it.
    """
    with explained(named):
        place = find_place(named)
        place.path.parent.mkdir(parents=True, exist_ok=True)
        place.check()
    _refuse(place, marker, force, parts)
    with ExitStack() as stack:
        with explained(named):
            if stack.enter_context(locked(place.path, place.named)):
                _put_back(place.path)
                sweep(place.path)
        _refuse(place, marker, force, parts)
        yield FolderOutput(place, force)


def check_folder(
    named: str | os.PathLike[str],
    *,
    marker: str,
    force: bool = False,
    parts: Callable[[Path], Collection[str]] | None = None,
) -> None:
    """Raise what `claim_folder` would raise now."""
    with claim_folder(named, marker=marker, force=force, parts=parts):
        pass


def prepare_folder(named: str | os.PathLike[str], *, force: bool = False) -> None:
    """Make a folder for files that are written one by one, such as dumps.

    Args:
        named: The folder; those above it are made.
        force: Whether it may hold files already, some of which may be replaced.

    Raises:
        VitcError: If it is not empty, or cannot be made.
    """
    folder = Path(named)
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if not force and any(folder.iterdir()):
            raise VitcError(f"{folder} is not empty.", "Write into it with --force.")


def _refuse(
    place: Place, marker: str, force: bool, parts: Callable[[Path], Collection[str]] | None
) -> None:
    if place.special or (place.mode is not None and not place.path.is_dir()):
        raise VitcError(f"{place.named} exists and is no folder.", "Choose another name.")
    with explained(place.named):
        empty = place.mode is None or not any(place.path.iterdir())
    if empty:
        return
    if not (place.path / marker).is_file():
        raise VitcError(
            f"{place.named} exists and is not an artefact: it holds no {marker}.",
            "Choose another name.",
        )
    if not force:
        raise refuse_taken(place.named)
    if parts is not None:
        with explained(place.named):
            known = parts(place.path)
            more = sorted(entry.name for entry in place.path.iterdir() if entry.name not in known)
        if more:
            rest = f" and {len(more) - 1} more" if more[1:] else ""
            raise VitcError(
                f"{place.named} also holds {more[0]}{rest}, which vitc did not write.",
                "It would go with the old artefact: move it elsewhere, or choose another name.",
            )


def _put_back(path: Path) -> None:
    for entry in left_over(path):
        if (entry / _OLD).is_dir() and not path.exists():
            (entry / _OLD).rename(path)
