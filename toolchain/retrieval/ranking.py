"""The best of a scan, ordered again by all vectors of another index of the same photos.

A fast index is scanned whole; an index of base towers has many vectors of each photo, and only
those of the best are read. The two are met by the names of the photos.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vitc.errors import VitcError
from vitc.retrieval.encoder import Encoder
from vitc.retrieval.index_file import Index, Packed
from vitc.retrieval.scan import Found, interactions, top

__all__ = ["Ranking", "ranked_again"]


@dataclass(frozen=True, eq=False)
class Ranking:
    """What the best are ordered by.

    Attributes:
        index: Open, of the encoder's model.
        encoder: Of the query.
        count: How many of the best are ordered again.
    """

    index: Index
    encoder: Encoder
    count: int


def ranked_again(found: Sequence[Found], by: Index, query: Packed, count: int) -> list[Found]:
    """Order photos by their vectors in another index.

    Args:
        found: Of a scan of some index.
        by: The other index.
        query: Packed vectors of its encoder, uint8 [a, P(d)].
        count: How many to give.

    Returns:
        Those of the largest scores there, best first; equal ones in the order of the first index.

    Raises:
        VitcError: If a photo is not in the other index, or that is damaged.
    """
    places = {each.name: by.number(each.name) for each in found}
    numbers = {name: number for name, number in places.items() if number is not None}
    lost = [name for name in places if name not in numbers]
    if lost:
        raise VitcError(
            f"{by.path} lacks {len(lost)} of {len(found)} photos to rank, {lost[0]!r} among them.",
            "Build it again of the same folder: `vitc index build`.",
        )
    if not found:
        return []
    lying = sorted(found, key=lambda each: each.index)
    kept = [by.tokens(numbers[each.name], numbers[each.name] + 1) for each in lying]
    scores = interactions(query, np.concatenate(kept), by.facts.width)
    return [
        Found(lying[i].index, lying[i].name, int(scores[i])) for i in top(scores, count).tolist()
    ]
