"""A search: words or a photo, an index, a list of photos."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vitc.errors import VitcError
from vitc.retrieval.encoder import Encoder
from vitc.retrieval.index_file import Index, Packed
from vitc.retrieval.ranking import Ranking, ranked_again
from vitc.retrieval.scan import Found, find
from vitc.retrieval.shards import search_shards

__all__ = ["Answer", "encoded", "model_of", "query", "query_shards"]


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
    index: Index,
    encoder: Encoder,
    *,
    text: str | None,
    like: Path | None,
    count: int,
    ranked: int = 0,
    by: Ranking | None = None,
) -> Answer:
    """Find the photos that fit words, or that are like a photo.

    Vectors of one photo are compared with those of another as words are: the best of each, summed.

    Args:
        index: Open, of the encoder's model.
        encoder: Of the query.
        text: Words, or None.
        like: A photo, or None.
        count: How many photos to find.
        ranked: As of `vitc.retrieval.scan.find`.
        by: What the best of the scan are ordered by again; None for nothing but the scan.

    Raises:
        VitcError: If there are neither words nor a photo or both, the photo cannot be read, fewer
            are ranked than wanted, or an index is damaged.
    """
    began = time.perf_counter()
    packed = encoded(encoder, text=text, like=like)
    again = None if by is None else encoded(by.encoder, text=text, like=like)
    done = time.perf_counter()
    if by is None or again is None:
        found = find(index, packed, count, ranked=ranked, compiled=encoder.scans)
        last, width = packed, index.facts.width
    else:
        if by.count < count:
            raise VitcError(
                f"{count} photos are wanted and only the best {by.count} are ranked again.",
                "Rank at least as many as are wanted.",
            )
        scanned = find(index, packed, by.count, compiled=encoder.scans)
        found, last, width = (
            ranked_again(scanned, by.index, again, count),
            again,
            by.index.facts.width,
        )
    searched = time.perf_counter()
    return Answer(
        found,
        -len(last) * width,
        index.images,
        1e3 * (done - began),
        1e3 * (searched - done),
    )


def query_shards(
    shards: Sequence[Path],
    encoder: Encoder,
    *,
    text: str | None,
    like: Path | None,
    count: int,
    ranked: int = 0,
    jobs: int | None = None,
) -> Answer:
    """Find the photos of an index in parts; arguments are those of `query` and `search_shards`."""
    began = time.perf_counter()
    packed = encoded(encoder, text=text, like=like)
    done = time.perf_counter()
    artefact = None if encoder.scans is None else encoder.path.resolve()
    found = search_shards(
        shards, encoder.model, packed, count, ranked=ranked, jobs=jobs, artefact=artefact
    )
    searched = time.perf_counter()
    images = 0
    for part in shards:
        with Index.open(part) as index:
            images += index.images
    return Answer(
        found,
        -len(packed) * encoder.config.width,
        images,
        1e3 * (done - began),
        1e3 * (searched - done),
    )


def encoded(encoder: Encoder, *, text: str | None, like: Path | None) -> Packed:
    """Packed vectors of words or of a photo, uint8 [a, P(d)].

    Raises:
        VitcError: As `query`.
    """
    if (text is None) == (like is None):
        raise VitcError("A search is for words, or for what is like a photo.", "Give one of them.")
    if like is not None:
        vectors = encoder.images(encoder.preprocessing.read(like)[None])
    elif not (text or "").strip():
        raise VitcError("The words to search for are empty.", 'Write some: "a dog".')
    else:
        vectors = encoder.texts([text or ""])
    packed: Packed = vectors[0]
    return packed


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
