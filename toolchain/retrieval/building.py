"""Building an index of a folder of photos, and bringing one up to date.

Photos that are in the index and have not changed since are kept, new ones are encoded, those that
are gone are left out. The index is replaced at once when all is done. What a build has encoded so
far is written beside it now and then, as an index of its own (``NAME.part``), from which an
interrupted build goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from vitc.dialect.packing import packed_width
from vitc.errors import VitcError
from vitc.models.picture import SUFFIXES
from vitc.models.picture_files import counted, find_pictures
from vitc.outputs import FileOutput, claim_file
from vitc.retrieval.encoder import Encoder
from vitc.retrieval.index_file import Index, IndexFacts, Packed, Vectors, write_index

__all__ = ["Built", "build_index"]

_BATCH: Final = 16
_SAVED_EVERY_S: Final = 10.0
_NAMED: Final = 3

Stamp = tuple[int, int]


@dataclass(frozen=True)
class Built:
    """What a build did.

    Attributes:
        path: The index.
        images: In it.
        added: Encoded for it: new photos, and those that had changed.
        kept: Taken over.
        removed: Were in it and are gone.
        broken: Photos that cannot be read, with the reason.
        seconds: Of encoding.
        index_bytes: Size of the file.
    """

    path: Path
    images: int
    added: int
    kept: int
    removed: int
    broken: dict[str, str]
    seconds: float
    index_bytes: int


def build_index(
    photos: Path,
    encoder: Encoder,
    out: Path,
    *,
    force: bool = False,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
    note: Callable[[str], None] = lambda _: None,
) -> Built:
    """Make an index of all photos below a folder, or bring it up to date.

    Args:
        photos: The folder.
        encoder: Whose vectors it holds.
        out: The index. One of the same model is brought up to date.
        force: Whether another index, or another file, may be replaced.
        progress: Called with how many photos are encoded, and of how many.
        note: Told what is left out, and what is gone on with.

    Raises:
        VitcError: If there is no photo, `out` is no index or of another model, or it cannot be
            written.
    """
    found = _photos(photos, note)
    part = out.with_name(f"{out.name}.part")
    # What is there is read as nobody else can write it, and never replaced unread.
    with claim_file(out, force=True) as output, claim_file(part, force=True) as aside:
        known = _known(out, encoder.model, force) if out.exists() else {}
        before = set(known)
        begun = _begun(part, encoder.model)
        if begun:
            note(f"going on with {len(begun)} photos that an interrupted build encoded")
        names = _unchanged(found, known | begun)
        work = [(name, stamp) for name, stamp in found.items() if name not in names]
        facts = IndexFacts(
            encoder.model,
            encoder.config.width,
            encoder.config.image_vectors,
            str(encoder.path.resolve()),
            str(photos.resolve()),
        )
        began = last = time.monotonic()
        broken: dict[str, str] = {}
        fresh: dict[str, tuple[Stamp, Packed]] = {}
        progress(0, len(work))
        for start in range(0, len(work), _BATCH):
            fresh |= _encoded(photos, work[start : start + _BATCH], encoder, broken)
            progress(min(start + _BATCH, len(work)), len(work))
            if time.monotonic() - last > _SAVED_EVERY_S:
                _write(aside, facts, begun | fresh)
                last = time.monotonic()
        seconds = time.monotonic() - began
        if broken:
            named = list(broken.values())[:_NAMED]
            more = f" So are {len(broken) - _NAMED} more." if len(broken) > _NAMED else ""
            note(f"left out {len(broken)} photos that cannot be read: {' '.join(named)}{more}")
        every = names | fresh
        if not every:
            raise VitcError(f"No photo of {photos} can be read.", "Replace them.")
        ordered = {name: every[name] for name in found if name in every}
        _write(output, facts, ordered)
        with suppress(OSError):
            part.unlink(missing_ok=True)
    return Built(
        path=out,
        images=len(ordered),
        added=len(ordered) - sum(name in known and name in names for name in ordered),
        kept=sum(name in known and name in names for name in ordered),
        removed=len(before - set(ordered)),
        broken=broken,
        seconds=seconds,
        index_bytes=out.stat().st_size,
    )


def _photos(folder: Path, note: Callable[[str], None]) -> dict[str, Stamp]:
    """Names below the folder, in order, with bytes and time."""
    if not folder.is_dir():
        raise VitcError(f"There is no folder {folder}.", "Name a folder of photos.")
    found = find_pictures(folder)
    if found.left:
        note(f"left out of {folder}: {counted(found.left)}")
    stamps: dict[str, Stamp] = {}
    for file in found.files:
        with suppress(OSError):  # gone since
            facts = file.stat()
            stamps[file.relative_to(folder).as_posix()] = (facts.st_size, facts.st_mtime_ns)
    if not stamps:
        others = f"; it has {counted(found.left)}" if found.left else ""
        raise VitcError(
            f"{folder} holds no photos{others}.",
            f"Wanted files ending in {', '.join(sorted(SUFFIXES))}.",
        )
    return stamps


def _known(path: Path, model: str, force: bool) -> dict[str, tuple[Stamp, Packed]]:
    """What an index holds; nothing of one that may be replaced."""
    try:
        with Index.open(path, model=model) as index:
            return _entries(index)
    except VitcError as error:
        if force and path.is_file():
            return {}
        raise VitcError(error.message, f"{error.hint} --force replaces it.") from error


def _begun(path: Path, model: str) -> dict[str, tuple[Stamp, Packed]]:
    """What an interrupted build left, if it is whole and of this model."""
    try:
        with Index.open(path, model=model) as index:
            return _entries(index)
    except VitcError:
        return {}


def _entries(index: Index) -> dict[str, tuple[Stamp, Packed]]:
    vectors = index.vectors()
    stamps = index.stamps().tolist()
    copied = vectors.tokens.copy()
    return {
        name: ((size, written), row)
        for name, (size, written), row in zip(vectors.ids, stamps, copied, strict=True)
    }


def _unchanged(
    found: dict[str, Stamp], known: dict[str, tuple[Stamp, Packed]]
) -> dict[str, tuple[Stamp, Packed]]:
    return {
        name: entry for name, entry in known.items() if name in found and found[name] == entry[0]
    }


def _encoded(
    folder: Path,
    work: Iterable[tuple[str, Stamp]],
    encoder: Encoder,
    broken: dict[str, str],
) -> dict[str, tuple[Stamp, Packed]]:
    pixels: list[NDArray[np.uint8]] = []
    read: list[tuple[str, Stamp]] = []
    for name, stamp in work:
        try:
            pixels.append(encoder.preprocessing.read(folder / name))
        except VitcError as error:
            broken[name] = error.message
        else:
            read.append((name, stamp))
    if not read:
        return {}
    vectors = encoder.images(np.stack(pixels))
    return {name: (stamp, row) for (name, stamp), row in zip(read, vectors, strict=True)}


def _write(output: FileOutput, facts: IndexFacts, entries: dict[str, tuple[Stamp, Packed]]) -> None:
    names: Sequence[str] = list(entries)
    tokens = np.empty((len(names), facts.tokens, packed_width(facts.width)), np.uint8)
    for row, (_, vectors) in zip(tokens, entries.values(), strict=True):
        row[...] = vectors
    stamps = np.array([stamp for stamp, _ in entries.values()], np.int64).reshape(-1, 2)
    write_index(output, facts, Vectors(names, tokens, stamps))
