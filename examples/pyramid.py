"""Two stages: midway four tokens become one, and the width doubles.

    python examples/pyramid.py OUT

The tokens are merged as in Swin Transformer (Liu et al., ICCV 2021): four neighbours side by side,
a norm, a linear in fp32.
"""

from __future__ import annotations

import torch
from digits import run
from torch import Tensor

from vitc import nn


class Stage(torch.nn.Module):
    """Binary attention and a binary MLP on a stream [B, tokens, width]."""

    def __init__(self, name: str, tokens: int, width: int, heads: int) -> None:
        super().__init__()
        self.name = name
        self.norm1 = nn.AxisNorm(tokens)
        self.attend = nn.BinaryAttention(width, heads, tokens)
        self.norm2 = nn.AxisNorm(tokens)
        self.mlp = nn.BinaryMLP(width, 2 * width, rows=tokens)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.tap(f"{self.name}.attended", x + self.attend(self.norm1(x)))
        return nn.tap(f"{self.name}.output", x + self.mlp(self.norm2(x)))


class Merge(torch.nn.Module):
    """A map of 8 x 8 tokens of 32 channels to one of 4 x 4 tokens of 64, in fp32."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.LayerNorm(4 * 32)
        self.reduction = torch.nn.Linear(4 * 32, 64)

    def forward(self, x: Tensor) -> Tensor:
        fours = x.reshape(-1, 4, 2, 4, 2, 32).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, 4 * 32)
        return nn.tap("merged", self.reduction(self.norm(fours)))


class Pyramid(torch.nn.Module):
    """A pyramid of two stages: images [B, 3, 32, 32] to logits [B, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.PatchEmbed(patch_size=4, width=32)
        self.fine = Stage("fine", tokens=64, width=32, heads=1)
        self.merge = Merge()
        self.coarse = Stage("coarse", tokens=16, width=64, heads=2)
        self.norm = torch.nn.LayerNorm(64)
        self.head = torch.nn.Linear(64, 10)

    def forward(self, image: Tensor) -> Tensor:
        x = self.fine(nn.tap("embedding", self.patches(image)))
        x = self.coarse(self.merge(x))
        return nn.tap("logits", self.head(self.norm(x).mean(dim=1)))


if __name__ == "__main__":
    torch.manual_seed(0)
    run(Pyramid())
