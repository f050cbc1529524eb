"""A block: attention, MLP and (with SI) the spatial branch around one fp32 residual stream."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vitc.models.layers.attention import BinaryAttention
from vitc.models.layers.mlp import BinaryMLP
from vitc.models.layers.norm import AxisNorm
from vitc.models.schemes import Scheme
from vitc.models.taps import tap

__all__ = ["Block"]


class Block(nn.Module):
    """``x + Attn(BN1(x))``, then ``x + MLP(BN2(x)) + scale * SI(BN3(x^T))^T``.

    Args:
        width: C, channels.
        tokens: N.
        heads: BinaryAttention heads.
        hidden: Hidden channels of the MLP.
        si_hidden: Hidden tokens of the spatial branch; 0 for none.
        scheme: Binarization scheme.
        weight_bits: 1 or 32.
        eps: Of the norms.
        name: Prefix of the tap names.
    """

    def __init__(
        self,
        *,
        width: int,
        tokens: int,
        heads: int,
        hidden: int,
        si_hidden: int,
        scheme: Scheme,
        weight_bits: int,
        eps: float,
        name: str,
    ) -> None:
        super().__init__()
        self.name = name
        self.has_si = si_hidden > 0
        self.norm1 = AxisNorm(tokens, eps=eps)
        self.attn = BinaryAttention(
            width, heads, tokens, scheme=scheme, weight_bits=weight_bits, name=f"{name}.attn"
        )
        self.norm2 = AxisNorm(tokens, eps=eps)
        self.mlp = BinaryMLP(
            width, hidden, tokens, scheme=scheme, weight_bits=weight_bits, name=f"{name}.mlp"
        )
        if self.has_si:
            self.learnablescaling = nn.Parameter(torch.zeros(1, 1, width))
            self.norm3 = AxisNorm(width, eps=eps)
            self.mlp2 = BinaryMLP(
                tokens, si_hidden, width, scheme=scheme, weight_bits=weight_bits, name=f"{name}.si"
            )

    def forward(self, x: Tensor) -> Tensor:
        """Residual stream [B, N, C] to residual stream [B, N, C]."""
        after = tap(f"{self.name}.attn.output", x + self.attn(self.norm1(x)))
        out = tap(f"{self.name}.mlp.output", after + self.mlp(self.norm2(after)))
        if not self.has_si:
            return out
        spatial = self.mlp2(self.norm3(after.transpose(1, 2))).transpose(1, 2)
        return tap(f"{self.name}.si.output", out + self.learnablescaling * spatial)
