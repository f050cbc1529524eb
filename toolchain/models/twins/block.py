"""The parts of a full-precision vision transformer: attention, MLP, and the block of both.

As in Dosovitskiy et al., An Image is Worth 16x16 Words, ICLR 2021: norms come first, GELU is that
by erf. Names are those of the binarized networks, so that a twin's weights fit them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitc.models.layers.groups import Grouping
from vitc.models.layers.patch_embed import PatchEmbed
from vitc.models.taps import tap

__all__ = ["Attention", "Block", "Mlp", "NormedPatches"]


class Attention(nn.Module):
    """Softmax attention inside groups of tokens; heads are head-major in queries, keys, values.

    Args:
        width: C, channels.
        heads: h; the head width is C / h.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.width = width
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def bias(self) -> Tensor | None:
        """What is added to the scores, [h, n, m] or [groups, h, n, m]; None for nothing."""
        return None

    def parts(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries [.., h, n, d], keys and values [.., h, m, d] of normalised tokens."""
        q, k, v = self.by_head(self.qkv(u), 3)
        return q, k, v

    def by_head(self, product: Tensor, count: int) -> list[Tensor]:
        """A product [.., n, count * C] to as many of [.., h, n, d]."""
        split = torch.unflatten(product, -1, (count, self.heads, self.width // self.heads))
        rank = split.ndim
        # One transposition, and each part is a run of memory.
        turned = split.permute(*range(rank - 4), rank - 3, rank - 2, rank - 4, rank - 1)
        return [turned.select(rank - 4, index) for index in range(count)]

    def forward(self, u: Tensor) -> Tensor:
        """Normalised tokens [B, n, C], or [B, groups, n, C], to what they attend, projected."""
        q, k, v = self.parts(u)
        scores = (q * (self.width // self.heads) ** -0.5) @ k.transpose(-2, -1)
        bias = self.bias()
        if bias is not None:
            scores = scores + bias
        context = F.softmax(scores, dim=-1) @ v
        projected: Tensor = self.proj(context.transpose(-3, -2).flatten(-2))
        return projected


class Mlp(nn.Module):
    """``fc2(GELU(fc1(x)))``.

    Args:
        width: C, channels.
        hidden: Hidden channels.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, u: Tensor) -> Tensor:
        """Normalised tokens [.., C] to what the residual stream is added."""
        out: Tensor = self.fc2(F.gelu(self.fc1(u)))
        return out


class Block(nn.Module):
    """``x + Attn(LN1(x))``, then ``x + MLP(LN2(x))``.

    Args:
        attn: Its attention.
        hidden: Hidden channels of the MLP.
        eps: Of the norms.
        name: First part of the tap names.
        groups: How tokens stand in groups that attend inside themselves; None if all attend all.
    """

    def __init__(
        self, attn: Attention, hidden: int, *, eps: float, name: str, groups: Grouping | None = None
    ) -> None:
        super().__init__()
        self.name = name
        self.groups = groups
        self.norm1 = nn.LayerNorm(attn.width, eps=eps)
        self.attn = attn
        self.norm2 = nn.LayerNorm(attn.width, eps=eps)
        self.mlp = Mlp(attn.width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """Residual stream [B, N, C] to residual stream [B, N, C]."""
        u = self.norm1(x)
        attended = (
            self.attn(u)
            if self.groups is None
            else self.groups.join(self.attn(self.groups.split(u)))
        )
        x = tap(f"{self.name}.attn.output", x + attended)
        return tap(f"{self.name}.mlp.output", x + self.mlp(self.norm2(x)))


class NormedPatches(PatchEmbed):
    """Patches of a map or an image, then a norm.

    Args:
        patch_size: Side of a patch.
        inputs: Channels of the map.
        width: C', channels of a patch's token.
        eps: Of the norm.
    """

    def __init__(self, patch_size: int, inputs: int, width: int, eps: float) -> None:
        super().__init__(patch_size, width, inputs)
        self.norm = nn.LayerNorm(width, eps=eps)

    def forward(self, image: Tensor) -> Tensor:
        """A map [B, C, H, W] to patches [B, N, C'], row-major."""
        patches: Tensor = self.norm(super().forward(image))
        return patches
