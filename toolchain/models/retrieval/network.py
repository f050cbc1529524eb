"""Two towers that give vectors of one space: of an image, and of a text.

The image tower is a binarized backbone (or its full-precision twin), whose head makes a vector of
each row that meets a text; the text tower is in fp32, as it runs once a query. The paper shares one
encoder over both sides; an image block that mixes the places of patches cannot be shared.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitc.dialect.entries import Entries, Scan
from vitc.models import ops
from vitc.models.architectures.retrieval import RetrievalConfig
from vitc.models.backbones.table import TRUNK_NETWORKS
from vitc.models.network import Network
from vitc.models.preprocessing import Preprocessing
from vitc.models.retrieval.modes import MODES
from vitc.models.retrieval.spread import Spread
from vitc.models.retrieval.text_tower import TextTower
from vitc.models.taps import tap

__all__ = ["FIRST", "IMAGE", "SCORE", "TEXT", "Retrieval"]

IMAGE = "image"
TEXT = "text"
SCORE = "score"
FIRST = "first"
"""Names of the vectors that a run gives, and of the entries of an artefact."""


class Retrieval(Network):
    """Image and text tower; arguments are those of `Network`, without labels.

    Raises:
        VitcError: As `Network`.
    """

    config: RetrievalConfig

    def __init__(
        self,
        config: RetrievalConfig,
        preprocessing: Preprocessing | None = None,
        labels: Sequence[str] | None = None,
    ) -> None:
        super().__init__(config, preprocessing, labels)
        own = {"codes": config.codes} if config.codes else {}
        self.image: Any = TRUNK_NETWORKS[config.image.arch](config.image, self.preprocessing, **own)
        self.text = TextTower(config)
        self.mode = MODES[config.mode]
        self.image_spread = Spread(config.image_vectors, config.width)
        self.text_spread = Spread(config.text_vectors, config.width)
        nn.init.xavier_uniform_(self.image.head.weight)

    def image_rows(self, image: Tensor) -> Tensor:
        """Images [B, 3, H, W] to what the vectors are the signs of, [B, b, d]."""
        rows = self.image.stream(image)
        config = self.config
        if not self.mode.first and config.image_tokens > config.regions:
            rows = self._chosen(rows)
        if self.mode.first and not config.image_first:
            rows = rows.mean(1, keepdim=True)
        vectors = self.mode.kept(self.image.head(rows))
        return tap("image.vectors", self.image_spread(vectors))

    def _chosen(self, rows: Tensor) -> Tensor:
        """The first row, others at even distances, and all codes."""
        count, kept = self.config.image_tokens, self.config.regions
        places = [i * (count - 1) // max(kept - 1, 1) for i in range(kept)]
        codes = range(count, count + self.config.codes)
        return torch.cat([rows[:, place : place + 1] for place in (*places, *codes)], dim=1)

    def text_rows(self, words: Tensor) -> Tensor:
        """Ids int [B, n] to what the vectors are the signs of, [B, a, d]."""
        vectors = self.mode.kept(self.text.head(self.text(words)))
        return tap("text.vectors", self.text_spread(vectors))

    def vectors(self, rows: Tensor) -> Tensor:
        """Rows to unit vectors; packed, those are signs over sqrt(d).

        Gradients are those of the float unit vectors: signs are passed straight through.
        """
        unit = F.normalize(rows, dim=-1)
        if not self.config.packed:
            return unit
        signs = (2.0 * (rows >= 0) - 1) / math.sqrt(self.config.width)
        return unit + (signs - unit).detach()

    def given(self, rows: Tensor) -> Tensor:
        """Rows to what is given of them: bits, uint8 {0, 1}; unit vectors while it trains."""
        if self.training:
            return self.vectors(rows)
        return ops.binarize(rows) if self.config.packed else F.normalize(rows, dim=-1)

    def forward(self, pixels: Tensor, words: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        """Both towers, each by itself.

        Args:
            pixels: Normalised images [B, 3, H, W].
            words: Ids of word pieces, int [B, n].

        Returns:
            `image` [B, b, d] and `text` [B, a, d], as `given`.

        Raises:
            VitcError: If the images are not of the network's size.
        """
        return {
            IMAGE: self.given(self.image_rows(pixels)),
            TEXT: self.given(self.text_rows(words)),
        }

    @property
    def entries(self) -> Entries:
        """Programs of an artefact: each tower alone, and the scores of what they give.

        Where that is several vectors, the scores of the first ones too, which a fast scan reads.
        """
        if not self.config.packed:
            return {}
        score = Scan(query=TEXT, documents=IMAGE)
        made: dict[str, Sequence[str] | Scan] = {IMAGE: (IMAGE,), TEXT: (TEXT,), SCORE: score}
        if max(self.config.image_vectors, self.config.text_vectors) > 1:
            made[FIRST] = replace(score, first=True)
        return made

    def example(self, count: int) -> dict[str, Tensor]:
        """What the network is traced with."""
        return {
            "pixels": torch.zeros(count, *self.config.input_shape),
            "words": torch.zeros(count, self.config.length, dtype=torch.int64),
        }
