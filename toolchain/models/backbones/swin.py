"""Binarized Swin: attention in windows of the map, SI in the same windows unshifted."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vitc.models.architectures.swin import SwinConfig
from vitc.models.backbones.staged import StagedNetwork, between, rectangles, stage_blocks
from vitc.models.binary_linear import BinaryLinear, FrozenBinaryLinear
from vitc.models.layers.norm import ChannelNorm
from vitc.models.layers.patch_embed import PatchEmbed
from vitc.models.preprocessing import Preprocessing
from vitc.models.taps import tap

__all__ = ["Swin"]


class _Embedding(PatchEmbed):
    def __init__(self, patch_size: int, width: int, eps: float) -> None:
        super().__init__(patch_size, width)
        self.norm = ChannelNorm(width, eps, "embedding")

    def forward(self, image: Tensor) -> Tensor:
        """Images [B, 3, H, W] to normalised patches [B, N, C]."""
        stream: Tensor = self.norm(super().forward(image))
        return stream


class _Merge(nn.Module):
    """``Linear(LayerNorm(four tokens side by side))``, without bias or binary."""

    def __init__(self, config: SwinConfig, inputs: int, outputs: int, name: str) -> None:
        super().__init__()
        self.name = name
        self.norm = ChannelNorm(4 * inputs, config.bn_eps, f"{name}.norm")
        self.reduction: nn.Linear | BinaryLinear = (
            nn.Linear(4 * inputs, outputs, bias=False)
            if config.merge == "float"
            else between(config, 4 * inputs, outputs)
        )

    def forward(self, x: Tensor, map_size: tuple[int, int]) -> Tensor:
        """[B, H W, C] of a map to [B, H / 2 W / 2, C']; of four tokens the row varies fastest."""
        height, width = map_size
        cut = torch.unflatten(x, 1, (height // 2, 2, width // 2, 2))
        four = cut.permute(0, 1, 3, 4, 2, 5).flatten(3, 5).flatten(1, 2)
        normal = self.norm(four)
        if isinstance(self.reduction, BinaryLinear | FrozenBinaryLinear):
            normal = tap(f"{self.name}.input", self.reduction.binarize(normal), "bits")
        return tap(self.name, self.reduction(normal))


class _Stage(nn.Module):
    def __init__(self, config: SwinConfig, index: int) -> None:
        super().__init__()
        self.index = index
        if index:
            self.before = config.stages[index - 1].map
            name = f"stages.{index}.merge"
            self.merge = _Merge(config, config.widths[index - 1], config.widths[index], name)
        self.blocks = stage_blocks(config, index, rectangles)

    def forward(self, x: Tensor) -> Tensor:
        """The stream of the stage before, or patches, to the stream [B, N, C]."""
        if self.index:
            x = self.merge(x, self.before)
        stream: Tensor = self.blocks(x)
        return stream


class Swin(StagedNetwork):
    """The classification network on Swin's backbone; arguments are those of `Network`.

    Raises:
        VitcError: If the scheme is unknown, or as `Network`.
    """

    config: SwinConfig

    def __init__(
        self,
        config: SwinConfig,
        preprocessing: Preprocessing | None = None,
        labels: Sequence[str] | None = None,
    ) -> None:
        super().__init__(config, preprocessing, labels)
        self.patch_embed = _Embedding(config.patch_size, config.widths[0], config.bn_eps)
        self.stages = nn.ModuleList(_Stage(config, index) for index in range(len(config.widths)))
        self.add_head()
