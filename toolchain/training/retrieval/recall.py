"""Recall of a score matrix, both ways."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vitc.errors import VitcError

__all__ = ["Recall", "ranks", "recall"]


@dataclass(frozen=True)
class Recall:
    """How far up what belongs together stands.

    Attributes:
        r1: Percent of queries whose best answer is right.
        r5: Percent with a right one among the first five.
        r10: Percent with a right one among the first ten.
        median_rank: Median place of the first right answer, 1 for the best; rounded down.
        mean_rank: Mean place.
    """

    r1: float
    r5: float
    r10: float
    median_rank: float
    mean_rank: float

    @classmethod
    def of(cls, places: Tensor) -> Recall:
        """Of places [Q], 0 for the best."""
        r1, r5, r10 = (100 * float((places < k).double().mean()) for k in (1, 5, 10))
        middle = torch.quantile(places.double(), 0.5)
        return cls(r1, r5, r10, float(middle.floor()) + 1, float(places.double().mean()) + 1)


def ranks(scores: Tensor, owner: Tensor) -> tuple[Tensor, Tensor]:
    """Places of the right answers.

    An answer's place is how many others score more; of equal scores those that stand before it in
    the matrix count as more.

    Args:
        scores: [I, T], a row an image, a column a text.
        owner: int64 [T], the image that each text belongs to.

    Returns:
        Of each image the place of the best of its own texts, int64 [I], and of each text the place
        of its image, int64 [T].

    Raises:
        VitcError: If an image has no text.
    """
    images, texts = scores.shape
    if owner.shape != (texts,) or set(owner.tolist()) != set(range(images)):
        raise VitcError(f"{texts} texts do not belong to {images} images, each at least one.")
    place = _places(scores)
    own = owner[None, :] == torch.arange(images)[:, None]
    of_image = torch.where(own, place, texts).amin(dim=1)
    of_text = _places(scores.T).gather(1, owner[:, None])[:, 0]
    return of_image, of_text


def _places(scores: Tensor) -> Tensor:
    """Place of each column in its row."""
    order = scores.argsort(dim=1, descending=True, stable=True)
    counted = torch.arange(scores.shape[1]).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, counted)


def recall(scores: Tensor, owner: Tensor) -> tuple[Recall, Recall]:
    """Recall from images to texts, and from texts to images; arguments as of `ranks`."""
    of_image, of_text = ranks(scores, owner)
    return Recall.of(of_image), Recall.of(of_text)
