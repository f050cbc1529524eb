"""The two branches behind the encoder: one rebuilds what is masked, one distils what is visible.

DMJD, section III-C. Neither is exported.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

from vitc.models.twins.block import Attention, Block
from vitc.training.dmjd.masking import Views
from vitc.training.dmjd.positions import sine_positions

__all__ = ["Distiller", "Reconstructor", "xavier"]

_EPS: Final = 1e-6
_STD: Final = 0.02


class Reconstructor(nn.Module):
    """The invisible branch: a small transformer that sees all places, masked ones as one token.

    Args:
        width: C, channels of the encoder.
        inner: D, channels of the branch.
        depth: Blocks.
        heads: Heads of a block.
        targets: Numbers that are predicted of a token.
        rows: Of the map of tokens.
        columns: Of the map of tokens.
        ratio: Hidden channels of the MLP by D.
    """

    positions: Tensor

    def __init__(
        self,
        width: int,
        inner: int,
        depth: int,
        heads: int,
        targets: int,
        rows: int,
        columns: int,
        *,
        ratio: int = 4,
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(width, inner)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, inner))
        self.blocks = nn.ModuleList(
            Block(Attention(inner, heads), ratio * inner, eps=_EPS, name=f"decoder.{i}")
            for i in range(depth)
        )
        self.norm = nn.LayerNorm(inner, eps=_EPS)
        self.head = nn.Linear(inner, targets)
        self.register_buffer(
            "positions", sine_positions(inner, rows, columns)[None], persistent=False
        )
        xavier(self)
        nn.init.normal_(self.mask_token, std=_STD)

    def forward(self, latent: Tensor, views: Views) -> Tensor:
        """Encoded visible tokens [K * B, visible, C] to predictions [K * B, tokens, targets]."""
        x = self.embed(latent)
        rows, tokens = views.restore.shape
        hidden = self.mask_token.expand(rows, tokens - x.shape[1], -1)
        places = views.restore[..., None].expand(-1, -1, x.shape[-1])
        x = torch.gather(torch.cat((x, hidden), dim=1), 1, places) + self.positions
        for block in self.blocks:
            x = block(x)
        predicted: Tensor = self.head(self.norm(x))
        return predicted


class Distiller(nn.Module):
    """The visible branch: a projector of three layers and a predictor.

    Args:
        width: C, channels of the encoder.
        inner: D, channels of the branch.
        targets: Numbers that are predicted of a token.
    """

    def __init__(self, width: int, inner: int, targets: int) -> None:
        super().__init__()
        self.projector = nn.Sequential(
            nn.Linear(width, inner),
            nn.LayerNorm(inner, eps=_EPS),
            nn.GELU(),
            nn.Linear(inner, inner),
            nn.LayerNorm(inner, eps=_EPS),
            nn.GELU(),
            nn.Linear(inner, inner),
            nn.LayerNorm(inner, eps=_EPS, elementwise_affine=False),
        )
        self.predictor = nn.Linear(inner, targets)
        xavier(self)

    def forward(self, latent: Tensor) -> Tensor:
        """Encoded visible tokens [K * B, visible, C] to predictions [K * B, visible, targets]."""
        predicted: Tensor = self.predictor(self.projector(latent))
        return predicted


def xavier(module: nn.Module) -> None:
    """Weights of linears uniform by Xavier, biases 0."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            nn.init.zeros_(part.bias)
