"""Two inputs and two outputs: the halves of an image, and its digit and whether that is odd.

python examples/two_views.py OUT
"""

from __future__ import annotations

import torch
from digits import run
from torch import Tensor

from vitc import nn

TOKENS, WIDTH = 32, 64


class View(torch.nn.Module):
    """Tokens [B, 32, 64] of one half [B, 3, 16, 32], mixed and attended."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.patches = nn.PatchEmbed(patch_size=4, width=WIDTH)
        self.mix = nn.SpatialInteraction(WIDTH, TOKENS)
        self.norm = nn.AxisNorm(TOKENS)
        self.attend = nn.BinaryAttention(WIDTH, heads=2, tokens=TOKENS)

    def forward(self, half: Tensor) -> Tensor:
        x = nn.tap(f"{self.name}.embedding", self.patches(half))
        x = nn.tap(f"{self.name}.mixed", x + self.mix(x))
        return nn.tap(f"{self.name}.attended", x + self.attend(self.norm(x)))


class TwoViews(torch.nn.Module):
    """Halves [B, 3, 16, 32] to the scores of the digits [B, 10] and of even and odd [B, 2]."""

    def __init__(self) -> None:
        super().__init__()
        self.views = torch.nn.ModuleDict({name: View(name) for name in ("upper", "lower")})
        self.norm = nn.AxisNorm(2 * TOKENS)
        self.mlp = nn.BinaryMLP(WIDTH, 2 * WIDTH, rows=2 * TOKENS)
        self.digit = torch.nn.Linear(WIDTH, 10)
        self.parity = torch.nn.Linear(WIDTH, 2)

    def forward(self, upper: Tensor, lower: Tensor) -> dict[str, Tensor]:
        x = torch.cat([self.views["upper"](upper), self.views["lower"](lower)], dim=1)
        x = nn.tap("both", x + self.mlp(self.norm(x)))
        pooled = x.mean(dim=1)
        return {"digit": self.digit(pooled), "parity": self.parity(pooled)}


def halves(images: Tensor) -> dict[str, Tensor]:
    """Images [B, 3, 32, 32] as the network takes them."""
    return {"upper": images[:, :, :16], "lower": images[:, :, 16:]}


def targets(digits: Tensor) -> dict[str, Tensor]:
    """What each output should say of digits [B]."""
    return {"digit": digits, "parity": digits % 2}


if __name__ == "__main__":
    torch.manual_seed(0)
    run(TwoViews(), inputs=halves, targets=targets)
