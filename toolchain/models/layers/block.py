"""A block: attention, MLP and (with SI) the spatial branch around one fp32 residual stream."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vitc.models.layers.attention import BinaryAttention
from vitc.models.layers.groups import Grouping
from vitc.models.layers.mlp import BinaryMLP
from vitc.models.layers.norm import AxisNorm, stream_norm
from vitc.models.schemes import Scheme
from vitc.models.taps import tap

__all__ = ["Block"]


class Block(nn.Module):
    """``x + Attn(norm1(x))``, then ``x + MLP(norm2(x)) + scale * SI(BN3(x^T))^T``.

    Tokens attend inside groups, and SI mixes those of a group. Either branch is added in groups, so
    that moving tokens is a view on both sides of the sum.

    Args:
        attn: Its attention, on the tokens of a group.
        width: C, channels.
        tokens: N.
        hidden: Hidden channels of the MLP.
        si_tokens: Tokens that the spatial branch mixes; 0 for no such branch.
        si_hidden: Its hidden tokens.
        scheme: Binarization scheme.
        weight_bits: 1 or 32.
        eps: Of the norms.
        name: Prefix of the tap names.
        norm: Of a branch's input, ``batch`` or ``layer``.
        groups: Of tokens that attend; None where all of them do.
        si_groups: Of tokens that the spatial branch mixes; None where it mixes all.
        codes: Of the `tokens`, the last so many, which the spatial branch leaves alone.
    """

    def __init__(
        self,
        attn: BinaryAttention,
        *,
        width: int,
        tokens: int,
        hidden: int,
        si_tokens: int,
        si_hidden: int,
        scheme: Scheme,
        weight_bits: int,
        eps: float,
        name: str,
        norm: str = "batch",
        groups: Grouping | None = None,
        si_groups: Grouping | None = None,
        codes: int = 0,
    ) -> None:
        super().__init__()
        self.name = name
        self.mixed = tokens - codes if codes else None
        self.groups = groups
        self.si_groups = si_groups
        self.has_si = si_tokens > 0
        self.norm1 = stream_norm(norm, tokens, width, eps, f"{name}.attn.norm")
        self.attn = attn
        self.norm2 = stream_norm(norm, tokens, width, eps, f"{name}.mlp.norm")
        self.mlp = BinaryMLP(
            width, hidden, tokens, scheme=scheme, weight_bits=weight_bits, name=f"{name}.mlp"
        )
        if self.has_si:
            self.learnablescaling = nn.Parameter(torch.zeros(1, 1, width))
            self.norm3 = AxisNorm(width, eps=eps)
            self.mlp2 = BinaryMLP(
                si_tokens,
                si_hidden,
                width,
                scheme=scheme,
                weight_bits=weight_bits,
                name=f"{name}.si",
            )

    def forward(self, x: Tensor) -> Tensor:
        """Residual stream [B, N, C] to residual stream [B, N, C]."""
        u = self.norm1(x)
        if self.groups is None:
            after = x + self.attn(u)
        else:
            after = self.groups.join(self.groups.split(x) + self.attn(u, groups=self.groups))
        after = tap(f"{self.name}.attn.output", after)
        out = tap(f"{self.name}.mlp.output", after + self.mlp(self.norm2(after)))
        if not self.has_si:
            return out
        if self.mixed is not None:
            return tap(f"{self.name}.si.output", self._mix_first(after, out, self.mixed))
        u = self.norm3(after.transpose(1, 2))
        if self.si_groups is None:
            out = out + self.learnablescaling * self.mlp2(u).transpose(1, 2)
        else:
            spatial = self.mlp2(u, groups=self.si_groups).transpose(2, 3)
            out = self.si_groups.join(self.si_groups.split(out) + self.learnablescaling * spatial)
        return tap(f"{self.name}.si.output", out)

    def _mix_first(self, after: Tensor, out: Tensor, count: int) -> Tensor:
        """The spatial branch on the first tokens, the codes behind them as they are."""
        u = self.norm3(after[:, :count].transpose(1, 2))
        mixed = out[:, :count] + self.learnablescaling * self.mlp2(u).transpose(1, 2)
        return torch.cat((mixed, out[:, count:]), dim=1)
