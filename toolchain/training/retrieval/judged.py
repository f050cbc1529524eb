"""How well towers retrieve: scores of all pictures with all captions, and their recall."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from vitc.models.preprocessing import Preprocessing
from vitc.models.retrieval.network import Retrieval
from vitc.models.retrieval.scores import late_interaction
from vitc.models.retrieval.word_pieces import WordPieces
from vitc.training.retrieval.captioned import Captioned
from vitc.training.retrieval.recall import recall

__all__ = ["Judged", "all_scores", "chance", "mean_recall", "recalls"]

_BATCH: Final = 128
_PRODUCTS: Final = 1 << 24
"""Products of vectors that are held at once."""

_FIRST: Final = (1, 5, 10)


@dataclass(frozen=True, eq=False)
class Judged:
    """Pictures and captions that towers are judged by.

    Attributes:
        pixels: uint8 [I, H, W, 3].
        words: int64 [T, n].
        owner: int64 [T], the picture that each caption belongs to.
    """

    pixels: Tensor
    words: Tensor
    owner: Tensor

    @classmethod
    def of(
        cls, pictures: Sequence[Captioned], shown: Preprocessing, words: WordPieces
    ) -> Judged:
        """Of some pictures with all their captions."""
        pixels = np.stack([picture.pixels(shown) for picture in pictures])
        texts = [caption for picture in pictures for caption in picture.captions]
        owner = [i for i, picture in enumerate(pictures) for _ in picture.captions]
        return cls(
            torch.from_numpy(pixels),
            torch.from_numpy(words(texts)).long(),
            torch.tensor(owner),
        )


@torch.no_grad()
def all_scores(towers: Retrieval, judged: Judged, device: torch.device) -> Tensor:
    """Scores [I, T] of every picture with every caption, on the CPU; a row a picture."""
    towers.eval()
    shown = towers.preprocessing
    images = torch.cat(
        [
            towers.vectors(
                towers.image_rows(torch.from_numpy(shown.normalise(part.numpy())).to(device))
            )
            for part in torch.split(judged.pixels, _BATCH)
        ]
    )
    texts = torch.cat(
        [
            towers.vectors(towers.text_rows(part.to(device)))
            for part in torch.split(judged.words, _BATCH)
        ]
    )
    beside = max(1, _PRODUCTS // (len(texts) * texts.shape[1] * images.shape[1]))
    return torch.cat([late_interaction(part, texts) for part in torch.split(images, beside)]).cpu()


def recalls(scores: Tensor, owner: Tensor) -> dict[str, float]:
    """Recalls both ways in [0, 1]: `text_to_image_r1`, .. and `image_to_text_r1`, .."""
    of_image, of_text = recall(scores, owner)
    return {
        f"{way}_r{k}": getattr(found, f"r{k}") / 100
        for way, found in (("text_to_image", of_text), ("image_to_text", of_image))
        for k in _FIRST
    }


def chance(judged: Judged) -> dict[str, float]:
    """What a random order gives, by the names of `recalls`."""
    images, texts = len(judged.pixels), len(judged.words)
    own = torch.bincount(judged.owner, minlength=images).double()
    found = {}
    for k in _FIRST:
        found[f"text_to_image_r{k}"] = min(k / images, 1.0)
        missed = torch.ones(images, dtype=torch.float64)
        for i in range(min(k, texts)):  # none of its own among the first k of all
            missed *= ((texts - own - i) / (texts - i)).clamp_min(0)
        found[f"image_to_text_r{k}"] = float((1 - missed).mean())
    return {name: found[name] for name in sorted(found, key=lambda name: name[0], reverse=True)}


def mean_recall(measures: Mapping[str, float]) -> float:
    """Mean of the six recalls: what an epoch is chosen by."""
    return sum(measures.values()) / len(measures)
