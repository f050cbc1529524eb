"""Pictures with captions, as a training of retrieval reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitc.models.described import both
from vitc.models.preprocessing import Preprocessing
from vitc.models.retrieval.word_pieces import WordPieces
from vitc.training.epoch_order import generator

__all__ = ["CaptionData", "Captioned", "Pairs"]

_KEPT_BYTES: Final = 1 << 30
_CAPTIONS: Final = 62
"""Stream of the captions that an epoch takes."""


@dataclass(frozen=True, eq=False)
class Captioned:
    """A picture with its captions.

    Attributes:
        name: For messages and lists.
        captions: What it shows, one or more.
        pixels: How it is read: uint8 [H, W, 3] of the crop.
    """

    name: str
    captions: tuple[str, ...]
    pixels: Callable[[Preprocessing], NDArray[np.uint8]]


class CaptionData(Protocol):
    """Data to learn retrieval from."""

    @property
    def spec(self) -> str:
        """As a user names it."""

    @property
    def validation(self) -> Sequence[Captioned]:
        """Pictures that the best epoch is chosen by."""

    @property
    def test(self) -> Sequence[Captioned]:
        """Pictures that are looked at once, at the end."""

    @property
    def drawn(self) -> bool:
        """Whether every epoch has other pictures."""

    @property
    def turned(self) -> bool:
        """Whether a mirror image has the same captions."""

    @property
    def texts(self) -> Iterable[str]:
        """What a vocabulary is learnt from."""

    def train(self, epoch: int) -> Sequence[Captioned]:
        """Pictures to learn from in an epoch, counted from 0; as many in each."""


class Pairs:
    """Pictures, each with one of its captions; see `vitc.training.data.Examples`.

    Args:
        data: What is learnt from.
        shown: How pictures become inputs.
        words: How captions become numbers.
        seed: Of the run: which caption an epoch takes.

    Attributes:
        epoch: Whose pictures and captions are given, counted from 0.
        in_memory: Whether pictures are kept; those that are drawn are drawn by other processes.
    """

    def __init__(
        self, data: CaptionData, shown: Preprocessing, words: WordPieces, seed: int
    ) -> None:
        self.data = data
        self.shown = shown
        self.words = words
        self.seed = seed
        pictures = data.train(0)
        size = len(pictures) * int(np.prod(both(shown.crop))) * 3
        self.in_memory = not data.drawn and size <= _KEPT_BYTES
        self._kept: dict[int, NDArray[np.uint8]] = {}
        self._count = len(pictures)
        self.epoch = 0

    @property
    def epoch(self) -> int:
        """Whose pictures are given."""
        return self._epoch

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self._epoch = epoch
        self._pictures = self.data.train(epoch)
        draws = torch.rand(self._count, generator=generator(self.seed, epoch, _CAPTIONS))
        self._chosen = [
            int(share * len(picture.captions))
            for share, picture in zip(draws.tolist(), self._pictures, strict=True)
        ]

    def __len__(self) -> int:
        return self._count

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Pixels uint8 [B, H, W, 3] and ids int64 [B, n]."""
        pixels = np.stack([self._pixels(index) for index in indices])
        captions = [self._pictures[i].captions[self._chosen[i]] for i in indices]
        return torch.from_numpy(pixels), torch.from_numpy(self.words(captions)).long()

    def _pixels(self, index: int) -> NDArray[np.uint8]:
        if self.data.drawn:
            return self._pictures[index].pixels(self.shown)
        if index not in self._kept:
            pixels = self._pictures[index].pixels(self.shown)
            if not self.in_memory:
                return pixels
            self._kept[index] = pixels
        return self._kept[index]
