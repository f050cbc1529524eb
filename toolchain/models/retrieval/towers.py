"""The float towers of the paper: one encoder of words and of image regions, and codes.

Layers are BERT's (Devlin et al., NAACL 2019): the norm comes after the sum, GELU is that by erf.
Words are word, position and type embeddings; regions are projected and normalised, and have no
positions. Codes are rows that stand behind the tokens at the encoder's input: they attend to all,
and all attend to them (Inflate and Shrink, section 3.2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitc.errors import VitcError

__all__ = ["Codes", "Encoder", "Regions", "SharedTowers", "TowerSizes", "Words"]

PAD: Final = 0
"""Id of what fills a text up."""

_BERT_EPS: Final = 1e-12
_EXCLUDED: Final = -1e4
_TYPES: Final = 2


@dataclass(frozen=True)
class TowerSizes:
    """Sizes of float towers.

    Attributes:
        width: d, of a token.
        heads: h; the head width is d / h.
        hidden: Of the MLP.
        layers: Of the encoder.
        vocabulary: Word pieces; 0 is padding.
        positions: Longest text.
        region_width: Features of an image region.
        codes: k, of each modality; 0 for none.
        dropout: Share of values that training leaves out.
    """

    width: int
    heads: int
    hidden: int
    layers: int
    vocabulary: int
    positions: int
    region_width: int
    codes: int = 0
    dropout: float = 0.1

    def __post_init__(self) -> None:
        counts = {
            name: getattr(self, name)
            for name in ("width", "heads", "hidden", "layers", "vocabulary", "positions")
        }
        low = next((name for name, count in counts.items() if count < 1), None)
        if low is not None or self.codes < 0 or self.region_width < 1:
            raise VitcError("Towers have at least one of everything but codes.")
        if self.width % self.heads:
            raise VitcError(f"A width of {self.width} does not split into {self.heads} heads.")


class _Layer(nn.Module):
    """``x = LN(x + Attn(x))``, then ``LN(x + MLP(x))``."""

    def __init__(self, sizes: TowerSizes) -> None:
        super().__init__()
        self.heads = sizes.heads
        self.dropout = sizes.dropout
        self.qkv = nn.Linear(sizes.width, 3 * sizes.width)
        self.proj = nn.Linear(sizes.width, sizes.width)
        self.norm1 = nn.LayerNorm(sizes.width, eps=_BERT_EPS)
        self.fc1 = nn.Linear(sizes.width, sizes.hidden)
        self.fc2 = nn.Linear(sizes.hidden, sizes.width)
        self.norm2 = nn.LayerNorm(sizes.width, eps=_BERT_EPS)

    def forward(self, x: Tensor, excluded: Tensor | None) -> Tensor:
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in self.qkv(x).chunk(3, dim=-1)
        )
        scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
        if excluded is not None:
            scores = scores + excluded
        weights = self._drop(scores.softmax(dim=-1))
        context = (weights @ v).transpose(1, 2).flatten(2)
        x = self.norm1(x + self._drop(self.proj(context)))
        out: Tensor = self.norm2(x + self._drop(self.fc2(F.gelu(self.fc1(x)))))
        return out

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)


class Encoder(nn.Module):
    """Layers over the rows of one modality.

    Args:
        sizes: Of the towers.
    """

    def __init__(self, sizes: TowerSizes) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Layer(sizes) for _ in range(sizes.layers))

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Rows [B, N, d] to rows [B, N, d].

        Args:
            x: Rows.
            valid: bool [B, N], the rows that others attend to; all if None.
        """
        excluded = None if valid is None else (~valid)[:, None, None] * _EXCLUDED
        for layer in self.layers:
            x = layer(x, excluded)
        return x


class Words(nn.Module):
    """Word pieces to rows: word, position and type, normalised.

    Args:
        sizes: Of the towers.
    """

    def __init__(self, sizes: TowerSizes) -> None:
        super().__init__()
        self.word = nn.Embedding(sizes.vocabulary, sizes.width, padding_idx=PAD)
        self.position = nn.Embedding(sizes.positions, sizes.width)
        self.segment = nn.Embedding(_TYPES, sizes.width)
        self.norm = nn.LayerNorm(sizes.width, eps=_BERT_EPS)
        self.dropout = sizes.dropout

    def forward(self, words: Tensor) -> Tensor:
        """Ids int64 [B, N] to rows [B, N, d].

        Raises:
            VitcError: If the texts are longer than there are positions.
        """
        if words.shape[1] > len(self.position.weight):
            raise VitcError(
                f"A text of {words.shape[1]} word pieces meets {len(self.position.weight)} "
                "positions.",
                "Cut it, or make towers of more positions.",
            )
        rows = self.word(words) + self.position.weight[: words.shape[1]] + self.segment.weight[0]
        return F.dropout(self.norm(rows), self.dropout, self.training)


class Regions(nn.Module):
    """Features of image regions to rows: projected, normalised.

    Args:
        sizes: Of the towers.
    """

    def __init__(self, sizes: TowerSizes) -> None:
        super().__init__()
        self.project = nn.Linear(sizes.region_width, sizes.width)
        self.norm = nn.LayerNorm(sizes.width)

    def forward(self, regions: Tensor) -> Tensor:
        """Features [B, N, R] to rows [B, N, d]."""
        rows: Tensor = self.norm(self.project(regions))
        return rows


class Codes(nn.Module):
    """Learnt rows behind the tokens; each goes through the norm of the regions.

    Args:
        count: k.
        width: d.
    """

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(count, width))

    def forward(self, rows: Tensor, norm: nn.Module) -> Tensor:
        """Rows [B, N, d] to rows [B, N + k, d]."""
        codes = norm(self.table).expand(len(rows), -1, -1)
        return torch.cat([rows, codes], dim=1)


class SharedTowers(nn.Module):
    """Both towers of the paper, which share one encoder.

    Args:
        sizes: Of the towers. With codes it is the inflated model, and without them base exactly.
    """

    def __init__(self, sizes: TowerSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.words = Words(sizes)
        self.regions = Regions(sizes)
        self.text_codes = Codes(sizes.codes, sizes.width)
        self.image_codes = Codes(sizes.codes, sizes.width)
        self.encoder = Encoder(sizes)

    def text(self, words: Tensor) -> Tensor:
        """Ids int64 [B, n], 0 for padding, to unit vectors [B, n + k, d]."""
        rows = self.text_codes(self.words(words), self.regions.norm)
        valid = F.pad(words != PAD, (0, self.sizes.codes), value=True)
        return F.normalize(self.encoder(rows, valid), dim=-1)

    def image(self, regions: Tensor) -> Tensor:
        """Features [B, n, R] to unit vectors [B, n + k, d]."""
        rows = self.image_codes(self.regions(regions), self.regions.norm)
        return F.normalize(self.encoder(rows), dim=-1)

    def student(self) -> SharedTowers:
        """Towers without codes and with a fresh encoder, on this one's frozen front end.

        Word embeddings, projection and norm are those of this model (section 3.3); only the
        encoder is trained.
        """
        sizes = TowerSizes(**{**vars(self.sizes), "codes": 0})
        made = SharedTowers(sizes)
        made.words.load_state_dict(self.words.state_dict())
        made.regions.load_state_dict(self.regions.state_dict())
        for part in (made.words, made.regions):
            part.requires_grad_(False)
        return made
