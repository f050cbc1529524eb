"""Spatial interaction: tokens mixed channel by channel."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vitc.models.layers.mlp import BinaryMLP
from vitc.models.layers.named import Named
from vitc.models.layers.norm import AxisNorm
from vitc.models.schemes import Scheme

__all__ = ["SpatialInteraction"]


class SpatialInteraction(Named):
    """``scale * MLP(BN(x^T))^T``: the spatial branch of SI-BiViT (section 3), to be added to `x`.

    Args:
        width: C, channels; norm, shifts, slopes and scale belong to them.
        tokens: N.
        hidden: Hidden tokens; N if None, as in the paper's code.
        scheme: Binarization scheme, or its name.
        weight_bits: 1 or 32.
        eps: Of the norm.
        name: First part of the tap names; empty for the name of the module.
    """

    def __init__(
        self,
        width: int,
        tokens: int,
        hidden: int | None = None,
        *,
        scheme: Scheme | str = "bibert",
        weight_bits: int = 1,
        eps: float = 1e-6,
        name: str = "",
    ) -> None:
        super().__init__(name)
        inner = f"{name}.mlp" if name else ""
        self.norm = AxisNorm(width, eps=eps)
        self.mlp = BinaryMLP(
            tokens, hidden or tokens, width, scheme=scheme, weight_bits=weight_bits, name=inner
        )
        self.learnablescaling = nn.Parameter(torch.full((1, 1, width), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        """Residual stream [B, N, C] to what is added to it, fp32 [B, N, C]."""
        mixed: Tensor = self.mlp(self.norm(x.transpose(1, 2)))
        return self.learnablescaling * mixed.transpose(1, 2)
