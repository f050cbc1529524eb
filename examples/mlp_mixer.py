"""A binary MLP-Mixer: tokens are mixed per channel, then channels per token; no attention.

After Tolstikhin et al., MLP-Mixer: An all-MLP Architecture for Vision, NeurIPS 2021, with the two
binary layers of SI-BiViT in the place of its two MLPs.

    python examples/mlp_mixer.py OUT
"""

from __future__ import annotations

import torch
from digits import run
from torch import Tensor

from vitc import nn

TOKENS, WIDTH = 64, 64


class Layer(torch.nn.Module):
    """Mixes the tokens of a stream [B, 64, 64], then its channels."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.tokens = nn.SpatialInteraction(WIDTH, TOKENS)
        self.norm = nn.AxisNorm(TOKENS)
        self.channels = nn.BinaryMLP(WIDTH, 2 * WIDTH, rows=TOKENS)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.tap(f"{self.name}.mixed", x + self.tokens(x))
        return nn.tap(f"{self.name}.output", x + self.channels(self.norm(x)))


class MLPMixer(torch.nn.Module):
    """A binary MLP-Mixer: images [B, 3, 32, 32] to logits [B, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.PatchEmbed(patch_size=4, width=WIDTH)
        self.layers = torch.nn.Sequential(Layer("layers.0"), Layer("layers.1"))
        self.norm = torch.nn.LayerNorm(WIDTH)
        self.head = torch.nn.Linear(WIDTH, 10)

    def forward(self, image: Tensor) -> Tensor:
        x = self.layers(nn.tap("embedding", self.patches(image)))
        return nn.tap("logits", self.head(self.norm(x).mean(dim=1)))


if __name__ == "__main__":
    torch.manual_seed(0)
    run(MLPMixer())
