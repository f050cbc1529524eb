"""An index in parts: each is an index, several processes search them, and the lists merge by score.

Which processes is joblib's matter: those of this machine, or where its backend is Dask's or Ray's
(``joblib.parallel_config``) those of many. A part holds neighbours of the whole index, so that
equal scores of a merged list stand as in that of the whole.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final

from joblib import Parallel, delayed

from vitc.errors import VitcError
from vitc.outputs import claim_file, claim_folder
from vitc.retrieval.compiled_scan import CompiledScans
from vitc.retrieval.index_file import Index, Packed, Vectors, write_index
from vitc.retrieval.scan import Found, find
from vitc.runtime.artefact import Artefact

__all__ = ["merged", "search_shards", "shards_of", "split_index"]

_SUFFIX: Final = ".vidx"
_MOST: Final = 10_000
_LIST: Final = "parts.json"
"""Says how many parts there are, so that none is missed."""

_loaded = threading.local()
"""What a thread of this process searches with."""


def split_index(index: Index, out: Path, count: int, *, force: bool = False) -> list[Path]:
    """Write an index as several of nearly equal size.

    Args:
        index: The whole.
        out: Folder of the parts.
        count: How many.
        force: Whether a folder of parts may be replaced.

    Returns:
        The parts, in order.

    Raises:
        VitcError: If there are fewer images than parts, the index is damaged, or the folder cannot
            be written.
    """
    if not 1 <= count <= min(index.images, _MOST):
        raise VitcError(
            f"{index.path} has {index.images} images, and {count} parts were asked for.",
            f"Ask for 1 to {min(index.images, _MOST)} parts.",
        )
    whole = index.vectors()
    assert whole.stamps is not None  # noqa: S101 - of an index that is there
    bounds = [index.images * i // count for i in range(count + 1)]
    with claim_folder(out, marker=_LIST, force=force) as folder, folder.scratch() as made:
        for name, (start, stop) in zip(_names(count), pairwise(bounds), strict=True):
            part = Vectors(
                whole.ids[start:stop], whole.tokens[start:stop], whole.stamps[start:stop]
            )
            with claim_file(made / name) as output:
                write_index(output, index.facts, part)
        (made / _LIST).write_text(json.dumps({"parts": count}) + "\n")
        folder.publish(made)
    return shards_of(out)


def shards_of(folder: Path) -> list[Path]:
    """The parts in a folder, in order.

    Raises:
        VitcError: If there are none, or one is missing among them.
    """
    hint = "Split it again: `vitc index split`."
    try:
        count = json.loads((folder / _LIST).read_text())["parts"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise VitcError(f"{folder} holds no parts of an index.", hint) from error
    if type(count) is not int or not 1 <= count <= _MOST:
        raise VitcError(f"{folder} is of {count!r} parts of an index.", hint)
    parts = [folder / name for name in _names(count)]
    for part in parts:
        if not part.is_file():
            raise VitcError(f"{folder} lacks {part.name}, a part of an index.", hint)
    return parts


def _names(count: int) -> list[str]:
    return [f"{number:04d}{_SUFFIX}" for number in range(count)]


def search_shards(
    shards: Sequence[str | os.PathLike[str]],
    model: str,
    query: Packed,
    count: int,
    *,
    ranked: int = 0,
    jobs: int | None = None,
    artefact: str | os.PathLike[str] | None = None,
) -> list[Found]:
    """Find the images that fit a query best, in all parts.

    Args:
        shards: The parts, in order; on several machines each sees them under these names.
        model: SHA-256 of the query's model.
        query: Packed vectors, uint8 [a, P(d)].
        count: How many to find.
        ranked: As of `vitc.retrieval.scan.find`, in each part.
        jobs: Processes; None for what ``joblib.parallel_config`` says, or one.
        artefact: Folder of the query's model, whose scans search; numpy where a process does not
            find it, or its processor cannot run it.

    Returns:
        What a search of the whole index finds, if none are ranked again.

    Raises:
        VitcError: If a part is no index, is damaged, or of another model.
    """
    folder = None if artefact is None else os.fspath(artefact)
    tasks = (
        delayed(_of_one)(os.fspath(part), model, query, count, ranked, folder) for part in shards
    )
    return merged(Parallel(n_jobs=jobs)(tasks), count)


def _of_one(
    path: str, model: str, query: Packed, count: int, ranked: int, artefact: str | None
) -> tuple[int, list[Found]]:
    compiled = None if artefact is None else _scans(artefact)
    with Index.open(path, model=model) as index:
        return index.images, find(index, query, count, ranked=ranked, compiled=compiled)


def _scans(artefact: str) -> CompiledScans | None:
    """Those of an artefact, which a thread loads once; None if that cannot be done here."""
    if getattr(_loaded, "artefact", None) != artefact:
        _loaded.artefact = artefact
        try:
            _loaded.scans = CompiledScans.of(Artefact.open(artefact).load())
        except VitcError:
            _loaded.scans = None
    found: CompiledScans | None = _loaded.scans
    return found


def merged(parts: Iterable[tuple[int, Sequence[Found]]], count: int) -> list[Found]:
    """One list of several.

    Args:
        parts: Images of each part, and its best, in order.
        count: How many to give.

    Returns:
        The best of all, numbered as in the whole; of equal ones the earlier first.
    """
    start, every = 0, list[Found]()
    for images, found in parts:
        every += [Found(start + each.index, each.name, each.score) for each in found]
        start += images
    return sorted(every, key=lambda each: (-each.score, each.index))[:count]
