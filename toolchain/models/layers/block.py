"""A block: attention, MLP and (with SI) the spatial branch around one fp32 residual stream."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

from vitc.models.layers.attention import BinaryAttention
from vitc.models.layers.mlp import BinaryMLP
from vitc.models.layers.norm import AxisNorm
from vitc.models.schemes import Scheme
from vitc.models.taps import tap

__all__ = ["Block"]

_SUM_TERMS: Final = 4


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
        attended = self.attn.sections(self.norm1(x), magnitude=lambda: self.norm1.magnitude(x))
        after = tap(
            f"{self.name}.attn.output",
            x + attended.value(),
            magnitude=lambda: x.abs() + attended.magnitude(),
            terms=_SUM_TERMS + attended.terms,
        )
        mixed = self.mlp.sections(self.norm2(after), lambda: self.norm2.magnitude(after))
        out = tap(
            f"{self.name}.mlp.output",
            after + mixed.value(),
            magnitude=lambda: after.abs() + mixed.magnitude(),
            terms=_SUM_TERMS + mixed.terms,
        )
        if not self.has_si:
            return out
        columns = after.transpose(1, 2)
        spatial = self.mlp2.sections(self.norm3(columns), lambda: self.norm3.magnitude(columns))
        gain = self.learnablescaling
        return tap(
            f"{self.name}.si.output",
            out + gain * spatial.value().transpose(1, 2),
            magnitude=lambda: out.abs() + gain.abs() * spatial.magnitude().transpose(1, 2),
            terms=6 + spatial.terms,
        )
