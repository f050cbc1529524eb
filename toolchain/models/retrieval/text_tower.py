"""The text tower: word pieces to vectors, fp32, of standard operations only.

Pre-norm transformer layers, GELU by erf. Padding is masked as keys by a table that is looked up by
the ids as the words are, so that nothing compares integers.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitc.models.architectures.retrieval import RetrievalConfig
from vitc.models.layers.codes import Codes
from vitc.models.retrieval.word_pieces import PAD
from vitc.models.taps import tap
from vitc.models.twins.block import Attention, Mlp

__all__ = ["TextTower"]

_EXCLUDED: Final = -1e4
_EPS: Final = 1e-6
_STD: Final = 0.02
_WORD_STD: Final = 0.2
"""Of word pieces before the first step: about as large as what the first attention adds to them."""


class _Masked(Attention):
    def attend(self, u: Tensor, excluded: Tensor) -> Tensor:
        """Normalised rows [B, N, C] to what they attend, projected.

        Args:
            u: Rows.
            excluded: What is added to the scores of keys, [B, 1, 1, N].
        """
        q, k, v = self.parts(u)
        scores = (q * (self.width // self.heads) ** -0.5) @ k.transpose(-2, -1) + excluded
        context = F.softmax(scores, dim=-1) @ v
        projected: Tensor = self.proj(context.transpose(-3, -2).flatten(-2))
        return projected


class _Layer(nn.Module):
    """``x + Attn(LN1(x))``, then ``x + MLP(LN2(x))``."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float, name: str) -> None:
        super().__init__()
        self.name = name
        self.dropout = dropout
        self.norm1 = nn.LayerNorm(width, eps=_EPS)
        self.attn = _Masked(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=_EPS)
        self.mlp = Mlp(width, hidden)

    def forward(self, x: Tensor, excluded: Tensor) -> Tensor:
        """Rows [B, N, C] to rows [B, N, C]."""
        x = x + self._drop(self.attn.attend(self.norm1(x), excluded))
        x = tap(f"{self.name}.attn.output", x)
        return tap(f"{self.name}.mlp.output", x + self._drop(self.mlp(self.norm2(x))))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)


class TextTower(nn.Module):
    """Word pieces to the rows' vectors, before their signs.

    Args:
        config: Of both towers.
        dropout: Of training.
    """

    pads: Tensor

    def __init__(self, config: RetrievalConfig, dropout: float = 0.1) -> None:
        super().__init__()
        C = config.text_width
        self.dropout = dropout
        self.word = nn.Embedding(len(config.pieces), C)
        self.positions = nn.Parameter(torch.zeros(1, config.length, C))
        self.codes = Codes(config.codes, C) if config.codes else None
        self.blocks = nn.ModuleList(
            _Layer(C, config.text_heads, config.text_hidden, dropout, f"text.blocks.{i}")
            for i in range(config.text_layers)
        )
        self.norm = nn.LayerNorm(C, eps=_EPS)
        self.head = nn.Linear(C, config.width)
        # A constant of the sizes: made by NumPy, it has values on the meta device, too.
        pads = np.zeros((len(config.pieces), 1), np.float32)
        pads[PAD] = _EXCLUDED
        self.register_buffer("pads", torch.from_numpy(pads), persistent=False)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for table, std in ((self.word.weight, _WORD_STD), (self.positions, _STD)):
            nn.init.trunc_normal_(table, std=std)

    def forward(self, words: Tensor) -> Tensor:
        """Ids int [B, n] to rows [B, n + k, C], normalised: what the head takes."""
        x = self.word(words) + self.positions
        excluded = F.embedding(words, self.pads)
        if self.codes is not None:
            x = self.codes(x)
            excluded = F.pad(excluded, (0, 0, 0, self.codes.table.shape[1]))
        excluded = excluded.transpose(1, 2).unsqueeze(1)
        x = F.dropout(tap("text.embedding", x), self.dropout, self.training)
        for block in self.blocks:
            x = block(x, excluded)
        rows: Tensor = self.norm(x)
        return rows
