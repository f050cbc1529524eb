"""Search: a scan of the first vectors of all images, then the best of them by all their vectors.

Scores are exact integers, and images of one score come in the order of the index, so the same
index and query give the same list on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from vitc.dialect.packing import packed_width
from vitc.errors import VitcError
from vitc.retrieval.index_file import Index, Packed

if TYPE_CHECKING:
    from vitc.retrieval.compiled_scan import CompiledScans, Listed

__all__ = ["Found", "find", "interactions", "scan", "search", "top"]

Scores = NDArray[np.int32]

_ROWS: Final = 1 << 15
"""Images that are looked at together: what is computed of them fits the caches."""
_TOKEN_ROWS: Final = 1 << 12
"""The same of images with several vectors."""


@dataclass(frozen=True)
class Found:
    """An image that a search found.

    Attributes:
        index: Its number in the index.
        name: Its name.
        score: In units of products of signs, from -a * d to a * d.
    """

    index: int
    name: str
    score: int


def interactions(query: Packed, documents: Packed, width: int) -> Scores:
    """Late interaction of signs: ``a * d - 2 * sum_a min_b hamming``.

    Args:
        query: Packed vectors of a text, uint8 [a, P(d)].
        documents: Packed vectors of images, uint8 [images, b, P(d)].
        width: d.

    Returns:
        int32 [images].
    """
    total = np.zeros(len(documents), np.int32)
    for vector in query:
        apart = np.bitwise_count(_words(documents) ^ _words(vector)).sum(-1, dtype=np.int32)
        total += apart.min(axis=-1)
    scores: Scores = np.int32(len(query) * width) - 2 * total
    return scores


def _words(packed: Packed) -> NDArray[np.unsignedinteger[Any]]:
    """The same bits in the longest words that fill a vector."""
    kinds = (np.uint64, np.uint32, np.uint16, np.uint8)
    word = next(kind for kind in kinds if not packed.shape[-1] % np.dtype(kind).itemsize)
    return np.ascontiguousarray(packed).view(word)


def scan(index: Index, query: Packed) -> Scores:
    """Score the first vector of every image with that of a text.

    Args:
        index: An open index.
        query: The first packed vector of a text, uint8 [P(d)].

    Returns:
        int32 [images].

    Raises:
        VitcError: If the vector is not of the index's width, or the index is damaged.
    """
    _fits(index, query[None])
    scores = np.empty(index.images, np.int32)
    for start in range(0, index.images, _ROWS):
        rows = index.first(start, start + _ROWS)
        scores[start : start + _ROWS] = interactions(query[None], rows[:, None], index.facts.width)
    return scores


def top(scores: Scores, count: int) -> NDArray[np.int64]:
    """The numbers of the best scores, best first; of equal ones the earlier first.

    Args:
        scores: int32 [images].
        count: How many, at most.
    """
    count = min(count, len(scores))
    if count < 1:
        return np.empty(0, np.int64)
    least = np.partition(scores, len(scores) - count)[len(scores) - count]
    better = np.flatnonzero(scores > least)
    equal = np.flatnonzero(scores == least)[: count - len(better)]
    chosen = np.sort(np.concatenate([better, equal]))
    return chosen[np.argsort(-scores[chosen].astype(np.int64), kind="stable")]


def search(
    index: Index,
    query: Packed,
    count: int,
    *,
    ranked: int = 0,
    compiled: CompiledScans | None = None,
) -> list[Found]:
    """Find the images that fit a text best.

    Args:
        index: An open index.
        query: Packed vectors of the text, uint8 [a, P(d)].
        count: How many to find.
        ranked: How many of the best by the scan are ranked again by all their vectors; 0 for none.
        compiled: Scans of an artefact, which do what they have entries for; numpy does the rest.

    Raises:
        VitcError: If the vectors do not fit the index, fewer are ranked than wanted, or the index
            is damaged.
    """
    _fits(index, query)
    if ranked and ranked < count:
        raise VitcError(
            f"{count} images are wanted and only the best {ranked} are ranked again.",
            "Rank at least as many as are wanted.",
        )
    listed = _best(index, query[:1], 1, max(count, ranked), compiled)
    if ranked and len(listed[0]):
        best, found = _ordered(index, query, listed[0], compiled)
        listed = best[:count], found[:count]
    return _named(index, listed)


def _best(
    index: Index, query: Packed, vectors: int, count: int, compiled: CompiledScans | None
) -> Listed:
    """The best images by the first of their vectors, or by all of them."""
    listed = None if compiled is None else compiled.best(index, query, vectors, count)
    if listed is not None:
        return listed
    if vectors == 1:
        scores = scan(index, query[0])
    else:
        scores = np.empty(index.images, np.int32)
        for start in range(0, index.images, _TOKEN_ROWS):
            rows = index.tokens(start, start + _TOKEN_ROWS)
            scores[start : start + _TOKEN_ROWS] = interactions(query, rows, index.facts.width)
    best = top(scores, count)
    return best, scores[best]


def _ordered(
    index: Index, query: Packed, images: NDArray[np.int64], compiled: CompiledScans | None
) -> Listed:
    """Images by all their vectors, best first."""
    listed = None if compiled is None else compiled.order(index, query, images)
    if listed is not None:
        return listed
    images = np.sort(images)  # equal scores come in the order of the index again
    kept = np.concatenate([index.tokens(i, i + 1) for i in images.tolist()])
    scores = interactions(query, kept, index.facts.width)
    order = top(scores, len(scores))
    return images[order], scores[order]


def _named(index: Index, listed: Listed) -> list[Found]:
    return [
        Found(int(i), index.name(int(i)), int(score)) for i, score in zip(*listed, strict=True)
    ]


def find(
    index: Index,
    query: Packed,
    count: int,
    *,
    ranked: int = 0,
    compiled: CompiledScans | None = None,
) -> list[Found]:
    """Find the images that fit best: by a scan, or by all vectors where an image has several.

    Args:
        index: An open index.
        query: Packed vectors of the text, uint8 [a, P(d)].
        count: How many to find.
        ranked: As of `search`: if not 0, several vectors are looked at of so many images only.
        compiled: As of `search`.

    Raises:
        VitcError: As `search`.
    """
    tokens = index.facts.tokens
    if tokens == 1 or ranked:
        again = ranked if tokens > 1 else 0
        return search(index, query, count, ranked=again, compiled=compiled)
    _fits(index, query)
    return _named(index, _best(index, query, tokens, count, compiled))


def _fits(index: Index, query: Packed) -> None:
    size = packed_width(index.facts.width)
    if query.dtype != np.uint8 or query.ndim != 2 or query.shape[1] != size or not len(query):
        raise VitcError(
            f"A query of {query.dtype} {list(query.shape)} meets vectors of {index.facts.width} "
            f"bits, uint8 [a, {size}]."
        )
    spare = -index.facts.width % 8
    if spare and bool((query[:, -1] >> (8 - spare)).any()):
        raise VitcError("The spare bits of the query's vectors are not 0.")
