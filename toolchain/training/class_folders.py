"""Folders of pictures as classes; nothing in them is left out without a word."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vitc.errors import VitcError
from vitc.models.picture import SUFFIXES
from vitc.models.picture_files import PictureFiles, counted, find_pictures

__all__ = ["Classes", "folders_below", "letters", "read_classes"]


@dataclass(frozen=True)
class Classes:
    """The class folders in a folder.

    Attributes:
        files: Class, which is the folder's name, to its pictures, at any depth; sorted. Empty if
            there are no class folders.
        loose: Pictures in no class folder.
        left: What else there is and how often, see `vitc.models.picture_files`.
    """

    files: Mapping[str, tuple[Path, ...]]
    loose: tuple[Path, ...] = ()
    left: Mapping[str, int] = field(default_factory=dict)


def folders_below(folder: Path) -> dict[str, Path]:
    """Folders in a folder by name, sorted, hidden ones left out.

    Raises:
        VitcError: If it cannot be read.
    """
    try:
        below = sorted(child for child in folder.iterdir() if not child.name.startswith("."))
        return {child.name: child for child in below if child.is_dir()}
    except OSError as error:
        raise VitcError(
            f"{folder} cannot be read: {error.strerror or error}.", "Check its permissions."
        ) from error


def read_classes(folder: Path) -> Classes:
    """Find the classes of a folder.

    Raises:
        VitcError: If a class has no picture that vitc reads, or the names of classes cannot be
            told apart.
    """
    found = {name: find_pictures(child) for name, child in folders_below(folder).items()}
    direct = find_pictures(folder, deep=False)
    left = Counter(direct.left)
    for entry in found.values():
        left.update(entry.left)
    if not any(entry.files for entry in found.values()):
        return Classes({}, direct.files, left)
    _refuse_vanishing(folder, found)
    _refuse_twins(folder, found)
    if direct.files:
        left["pictures in no class folder"] += len(direct.files)
    return Classes({name: entry.files for name, entry in found.items()}, (), left)


def letters(name: str) -> str:
    """How the letters of a name with accents are encoded, in words."""
    if unicodedata.is_normalized("NFC", name):
        return "composed letters (NFC)"
    if unicodedata.is_normalized("NFD", name):
        return "decomposed letters (NFD)"
    return "letters composed in part"


def _refuse_vanishing(folder: Path, found: Mapping[str, PictureFiles]) -> None:
    gone = [
        f"{name} ({counted(entry.left) or 'empty'})"
        for name, entry in found.items()
        if not entry.files
    ]
    if gone:
        more = f" and {len(gone) - 8} more" if len(gone) > 8 else ""
        raise VitcError(
            f"Class folders of {folder} hold no picture that vitc reads: "
            f"{', '.join(gone[:8])}{more}.",
            f"Give them files ending in {', '.join(sorted(SUFFIXES))}, or take the folders away.",
        )


def _refuse_twins(folder: Path, names: Iterable[str]) -> None:
    known: dict[str, str] = {}
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise VitcError(
                f"The class folder {os.fsencode(name)!r} of {folder} is not named in UTF-8.",
                "Rename it, for example with `convmv`.",
            ) from error
        other = known.setdefault(unicodedata.normalize("NFC", name), name)
        if other != name:
            raise VitcError(
                f"{folder} has two class folders that read {name!r}, one in {letters(other)}, one "
                f"in {letters(name)}.",
                "Put their pictures into one folder.",
            )
