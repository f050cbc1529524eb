"""The full-precision NesT: attention in blocks of tokens, four of which become one between levels.

Zhang et al., Nested Hierarchical Transformer: Towards Accurate, Data-Efficient and Interpretable
Visual Understanding, AAAI 2022. The stream of a level is block after block, each row-major.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitc.models.architectures.float_nest import NesTTwinConfig
from vitc.models.layers.groups import Blocks, Rectangles
from vitc.models.layers.patch_embed import PatchEmbed
from vitc.models.preprocessing import Preprocessing
from vitc.models.taps import tap
from vitc.models.twins.block import Attention, Block
from vitc.models.twins.twin import Twin

__all__ = ["NesTTwin"]


class _Pool(nn.Module):
    """``MaxPool3x3(LN(Conv3x3(x)))`` with stride 2.

    Args:
        inputs: Channels before.
        outputs: Channels behind.
        pad_type: Of the pool: ``same`` pads below and right, '' every side.
        eps: Of the norm.
        name: Of the tap.
    """

    def __init__(self, inputs: int, outputs: int, *, pad_type: str, eps: float, name: str) -> None:
        super().__init__()
        self.name = name
        self.around = pad_type == ""
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm = nn.LayerNorm(outputs, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """A map [B, H, W, C] to a map [B, H / 2, W / 2, C']; H and W are even."""
        normal = self.norm(self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        # With even sides, rounding up adds one row below and one column to the right.
        pooled = (
            F.max_pool2d(normal, 3, 2, padding=1)
            if self.around
            else F.max_pool2d(normal, 3, 2, ceil_mode=True)
        )
        return tap(self.name, pooled.permute(0, 2, 3, 1))


class _Level(nn.Module):
    def __init__(self, config: NesTTwinConfig, index: int) -> None:
        super().__init__()
        width, size = config.widths[index], config.maps[index]
        self.name = f"stages.{index}"
        self.cut = Rectangles(size, config.block)
        if index:
            self.before = Rectangles(config.maps[index - 1], config.block)
            self.pool = _Pool(
                config.widths[index - 1],
                width,
                pad_type=config.pad_type,
                eps=config.side_eps,
                name=f"{self.name}.pool",
            )
        places = config.block[0] * config.block[1]
        count = size[0] * size[1] // places
        self.pos_embed = nn.Parameter(torch.zeros(1, count, places, width))
        self.blocks = nn.Sequential(
            *(
                Block(
                    Attention(width, config.heads[index]),
                    config.hidden[index],
                    eps=config.bn_eps,
                    name=f"{self.name}.blocks.{i}",
                    groups=Blocks(count) if count > 1 else None,
                )
                for i in range(config.depths[index])
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """Patches [B, N, C], row-major, or the stream of the level before, to this stream."""
        if hasattr(self, "pool"):
            count = self.before.map[0] * self.before.map[1] // self.pos_embed.shape[2]
            joined = self.before.join(torch.unflatten(x, 1, (count, -1)))
            x = self.pool(torch.unflatten(joined, 1, self.before.map)).flatten(1, 2)
        placed = (self.cut.split(x) + self.pos_embed).flatten(1, 2)
        stream: Tensor = self.blocks(tap(f"{self.name}.embedding", placed))
        return stream


class NesTTwin(Twin):
    """The twin of NesT; arguments are those of `Network`."""

    config: NesTTwinConfig

    def __init__(
        self,
        config: NesTTwinConfig,
        preprocessing: Preprocessing | None = None,
        labels: Sequence[str] | None = None,
    ) -> None:
        super().__init__(config, preprocessing, labels)
        self.patch_embed = PatchEmbed(config.patch_size, config.widths[0])
        self.stages = nn.Sequential(*(_Level(config, s) for s in range(len(config.widths))))
        self.norm = nn.LayerNorm(config.widths[-1], eps=config.bn_eps)
        self.head = nn.Linear(config.widths[-1], config.classes)
        self._begin()

    def trunk(self, image: Tensor) -> Tensor:
        """See `Twin.trunk`."""
        self.check_images(image)
        tokens: Tensor = self.stages(self.patch_embed(image))
        return tokens

    def on_map(self, tokens: Tensor) -> Tensor:
        """See `Twin.on_map`."""
        return self._joined(tokens, self.config.maps[-1])

    def _joined(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        cut = Rectangles(size, self.config.block)
        joined = cut.join(torch.unflatten(tokens, 1, (cut.count, -1)))
        return torch.unflatten(joined, 1, size)

    def maps(self, image: Tensor) -> list[Tensor]:
        """See `Network.maps`."""
        self.check_images(image)
        x, made = self.patch_embed(image), []
        for stage, size in zip(self.stages, self.config.maps, strict=True):
            x = stage(x)
            made.append(self._joined(x, size).permute(0, 3, 1, 2))
        return made

    def forward(self, image: Tensor) -> Tensor:
        """Normalised images [B, 3, H, W] to logits [B, classes].

        Raises:
            VitcError: If the images are not of the network's size.
        """
        return tap("logits", self.head(self.norm(self.trunk(image)).mean(dim=1)))
