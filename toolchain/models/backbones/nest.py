"""Binarized NesT: attention and SI in blocks, which are merged two by two between levels.

The stream is block after block, each row-major, as positions are. Between levels it is a map.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitc.models.architectures.nest import NestConfig
from vitc.models.backbones.staged import StagedNetwork, between, stage_blocks
from vitc.models.binary_linear import BinaryLinear, FrozenBinaryLinear
from vitc.models.layers.convolution import around
from vitc.models.layers.groups import Blocks, Rectangles
from vitc.models.layers.norm import ChannelNorm
from vitc.models.layers.patch_embed import PatchEmbed
from vitc.models.preprocessing import Preprocessing
from vitc.models.taps import tap

__all__ = ["Nest"]


class _Pool(nn.Module):
    """``MaxPool3x3(LayerNorm(Conv3x3(x)))`` on the map, padded below and right only by the pool."""

    def __init__(self, config: NestConfig, inputs: int, outputs: int, name: str) -> None:
        super().__init__()
        self.name = name
        self.conv: nn.Conv2d | BinaryLinear = (
            nn.Conv2d(inputs, outputs, 3, padding=1)
            if config.merge == "float"
            else between(config, inputs, outputs, kernel=3)
        )
        self.norm = ChannelNorm(outputs, config.bn_eps, f"{name}.norm")

    def forward(self, x: Tensor) -> Tensor:
        """Maps [B, H, W, C] to [B, H / 2, W / 2, C'], H and W even."""
        if isinstance(self.conv, BinaryLinear | FrozenBinaryLinear):
            x = around(self.conv, x, f"{self.name}.conv")
        else:
            x = self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        x = tap(f"{self.name}.conv", x)
        # With even sides, rounding up adds one row below and one column to the right.
        pooled = F.max_pool2d(self.norm(x).permute(0, 3, 1, 2), 3, 2, ceil_mode=True)
        return pooled.permute(0, 2, 3, 1)


class _Level(nn.Module):
    def __init__(self, config: NestConfig, index: int) -> None:
        super().__init__()
        stage = config.stages[index]
        self.index = index
        self.blocked = Rectangles(stage.map, config.block)
        count = self.blocked.count
        if index:
            self.before = Rectangles(config.stages[index - 1].map, config.block)
            self.pool = _Pool(config, config.widths[index - 1], stage.width, f"stages.{index}.pool")
        self.pos_embed = nn.Parameter(torch.zeros(1, count, stage.group, stage.width))
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        self.blocks = stage_blocks(
            config, index, lambda whole, size, _: None if whole == size else Blocks(count)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Patches, or the stream of the level before, to the stream [B, N, C]."""
        if self.index:
            before = self.before
            joined = before.join(torch.unflatten(x, 1, (before.count, -1)))
            x = self.pool(torch.unflatten(joined, 1, before.map)).flatten(1, 2)
        x = self.blocked.split(x) + self.pos_embed
        name = f"stages.{self.index}.embedding" if self.index else "embedding"
        stream: Tensor = self.blocks(tap(name, x.flatten(1, 2)))
        return stream


class Nest(StagedNetwork):
    """The classification network on NesT's backbone; arguments are those of `Network`.

    Raises:
        VitcError: If the scheme is unknown, or as `Network`.
    """

    config: NestConfig

    def __init__(
        self,
        config: NestConfig,
        preprocessing: Preprocessing | None = None,
        labels: Sequence[str] | None = None,
    ) -> None:
        super().__init__(config, preprocessing, labels)
        self.patch_embed = PatchEmbed(config.patch_size, config.widths[0])
        self.stages = nn.ModuleList(_Level(config, index) for index in range(len(config.widths)))
        self.add_head()

    def on_map(self, x: Tensor, index: int) -> Tensor:
        """See `StagedNetwork.on_map`; the stream is block after block."""
        cut = Rectangles(self.config.stages[index].map, self.config.block)
        return torch.unflatten(cut.join(torch.unflatten(x, 1, (cut.count, -1))), 1, cut.map)
