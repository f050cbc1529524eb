"""Queries from one input, keys and values from another: tokens of a thumbnail attend to an image.

    python examples/crossed.py OUT

As the latent array of Perceiver (Jaegle et al., ICML 2021) attends to its input; here the few
queries are the patches of the same image at a quarter of its size.
"""

from __future__ import annotations

import torch
from digits import run
from torch import Tensor
from torch.nn import functional as F

from vitc import nn

FEW, MANY, WIDTH = 4, 64, 64


class Crossed(torch.nn.Module):
    """Thumbnails [B, 3, 8, 8] and images [B, 3, 32, 32] to logits [B, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.few = nn.PatchEmbed(patch_size=4, width=WIDTH)
        self.many = nn.PatchEmbed(patch_size=4, width=WIDTH)
        self.norm1 = nn.AxisNorm(FEW)
        self.keys_norm = nn.AxisNorm(MANY)
        self.attend = nn.BinaryAttention(WIDTH, heads=2, tokens=FEW, keys=MANY)
        self.norm2 = nn.AxisNorm(FEW)
        self.mlp = nn.BinaryMLP(WIDTH, 2 * WIDTH, rows=FEW)
        self.norm = torch.nn.LayerNorm(WIDTH)
        self.head = torch.nn.Linear(WIDTH, 10)

    def forward(self, thumbnail: Tensor, image: Tensor) -> Tensor:
        x = nn.tap("few", self.few(thumbnail))
        keys = nn.tap("many", self.many(image))
        x = nn.tap("attended", x + self.attend(self.norm1(x), self.keys_norm(keys)))
        x = nn.tap("mixed", x + self.mlp(self.norm2(x)))
        return nn.tap("logits", self.head(self.norm(x).mean(dim=1)))


def both(images: Tensor) -> dict[str, Tensor]:
    """Images [B, 3, 32, 32] as the network takes them."""
    return {"thumbnail": F.avg_pool2d(images, 4), "image": images}


if __name__ == "__main__":
    torch.manual_seed(0)
    run(Crossed(), inputs=both)
