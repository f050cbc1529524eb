"""Binarized PVT (v1): in each stage all tokens attend keys of a reduced map.

The stream of a stage is its map, row-major, in the last one behind a class token.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vitc.models.architectures.pvt import PVTConfig
from vitc.models.backbones.staged import StagedNetwork, between, rectangles, stage_blocks
from vitc.models.layers.convolution import without_overlap
from vitc.models.layers.norm import ChannelNorm
from vitc.models.layers.patch_embed import PatchEmbed
from vitc.models.preprocessing import Preprocessing
from vitc.models.taps import tap

__all__ = ["Pvt"]


class _Patches(PatchEmbed):
    """``LayerNorm(Conv(x))`` of patches of an image or of the map of the stage before."""

    def __init__(self, patch_size: int, inputs: int, width: int, eps: float, name: str) -> None:
        super().__init__(patch_size, width, inputs)
        self.norm = ChannelNorm(width, eps, f"{name}.norm")

    def forward(self, image: Tensor) -> Tensor:
        """Maps [B, C, H, W] to normalised patches [B, N, C']."""
        patches: Tensor = self.norm(super().forward(image))
        return patches


class _BinaryPatches(nn.Module):
    """``LayerNorm(Conv(sgn(x + move)))`` of 2 x 2 places of the map of the stage before."""

    def __init__(self, config: PVTConfig, inputs: int, width: int, name: str) -> None:
        super().__init__()
        self.name = name
        self.proj = between(config, inputs, width, kernel=2)
        self.norm = ChannelNorm(width, config.bn_eps, f"{name}.norm")

    def forward(self, x: Tensor) -> Tensor:
        """Maps [B, C, H, W] to normalised patches [B, N, C']."""
        places = without_overlap(self.proj, x.permute(0, 2, 3, 1), 2, f"{self.name}.proj")
        patches: Tensor = self.norm(tap(f"{self.name}.proj", places))
        return patches


class _Stage(nn.Module):
    def __init__(self, config: PVTConfig, index: int) -> None:
        super().__init__()
        stage = config.stages[index]
        self.name = f"stages.{index}"
        self.before = config.stages[index - 1].map if index else None
        name = f"{self.name}.patch_embed"
        inputs = config.widths[index - 1] if index else 3
        self.patch_embed: nn.Module = (
            _BinaryPatches(config, inputs, stage.width, name)
            if index and config.merge == "binary"
            else _Patches(
                2 if index else config.patch_size, inputs, stage.width, config.bn_eps, name
            )
        )
        self.class_token = stage.class_token
        if stage.class_token:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, stage.width))
            nn.init.trunc_normal_(self.cls_token, std=0.02)
        self.pos_embed = nn.Parameter(torch.zeros(1, stage.tokens, stage.width))
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        self.blocks = stage_blocks(config, index, rectangles)

    def forward(self, x: Tensor) -> Tensor:
        """Images [B, 3, H, W], or the stream of the stage before, to the stream [B, N, C]."""
        if self.before is not None:
            x = torch.unflatten(x.transpose(1, 2), 2, self.before)
        tokens = self.patch_embed(x)
        if self.class_token:
            tokens = torch.cat((self.cls_token.expand(x.shape[0], -1, -1), tokens), dim=1)
        stream: Tensor = self.blocks(tap(f"{self.name}.embedding", tokens + self.pos_embed))
        return stream


class Pvt(StagedNetwork):
    """The classification network on PVT's backbone; arguments are those of `Network`.

    Raises:
        VitcError: If the scheme is unknown, or as `Network`.
    """

    config: PVTConfig

    def __init__(
        self,
        config: PVTConfig,
        preprocessing: Preprocessing | None = None,
        labels: Sequence[str] | None = None,
    ) -> None:
        super().__init__(config, preprocessing, labels)
        self.stages = nn.ModuleList(_Stage(config, index) for index in range(len(config.widths)))
        self.add_head()

    def embed(self, image: Tensor) -> Tensor:
        """An image is what the first stage takes."""
        return image

    def pool(self, x: Tensor) -> Tensor:
        """The class token."""
        return x[:, 0]
