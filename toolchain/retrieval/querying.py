"""A search: words or a photo, an index, a list of photos."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from vitc.errors import VitcError
from vitc.retrieval.encoder import Encoder
from vitc.retrieval.index_file import Index, Packed
from vitc.retrieval.scan import Found, interactions, search, top

__all__ = ["Answer", "by_all_vectors", "model_of", "query"]

_ROWS: Final = 1 << 12


@dataclass(frozen=True)
class Answer:
    """What a search found.

    Attributes:
        found: Photos, best first; of equal scores the earlier in the index first.
        least: The least that a score can be; the largest is its negative.
        images: In the index.
        encode_ms: Of the query.
        search_ms: Of the scan.
    """

    found: list[Found]
    least: int
    images: int
    encode_ms: float
    search_ms: float


def query(
    index: Index, encoder: Encoder, *, text: str | None, like: Path | None, count: int
) -> Answer:
    """Find the photos that fit words, or that are like a photo.

    Vectors of one photo are compared with those of another as words are: the best of each, summed.

    Args:
        index: Open, of the encoder's model.
        encoder: Of the query.
        text: Words, or None.
        like: A photo, or None.
        count: How many photos to find.

    Raises:
        VitcError: If there are neither words nor a photo or both, the photo cannot be read, or the
            index is damaged.
    """
    if (text is None) == (like is None):
        raise VitcError("A search is for words, or for what is like a photo.", "Give one of them.")
    began = time.perf_counter()
    if like is not None:
        (packed,) = encoder.images(encoder.preprocessing.read(like)[None])
    else:
        if not (text or "").strip():
            raise VitcError("The words to search for are empty.", 'Write some: "a dog".')
        (packed,) = encoder.texts([text or ""])
    encoded = time.perf_counter()
    found = (
        search(index, packed, count)
        if index.facts.tokens == 1
        else by_all_vectors(index, packed, count)
    )
    done = time.perf_counter()
    return Answer(
        found,
        -len(packed) * index.facts.width,
        index.images,
        1e3 * (encoded - began),
        1e3 * (done - encoded),
    )


def model_of(index: Index) -> Path:
    """Where the model of an index was when it was built.

    Raises:
        VitcError: If it is not there now.
    """
    place = Path(index.facts.made_by)
    if not index.facts.made_by or not place.exists():
        where = f" at {place}" if index.facts.made_by else ""
        raise VitcError(
            f"The model that {index.path} was built with is not{where or ' known'}.",
            "Name it with --model.",
        )
    return place


def by_all_vectors(index: Index, packed: Packed, count: int) -> list[Found]:
    """Score every image by all its vectors: late interaction without a scan before it.

    Args:
        index: An open index.
        packed: Packed vectors of a query, uint8 [a, P(d)].
        count: How many to find.

    Raises:
        VitcError: If the index is damaged.
    """
    scores = np.empty(index.images, np.int32)
    for start in range(0, index.images, _ROWS):
        rows = index.tokens(start, start + _ROWS)
        scores[start : start + _ROWS] = interactions(packed, rows, index.facts.width)
    best = top(scores, count)
    return [Found(int(i), index.ids[int(i)], int(scores[i])) for i in best]
