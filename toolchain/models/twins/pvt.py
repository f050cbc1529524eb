"""The full-precision PVT (v1): keys and values come from a reduced map.

Wang et al., Pyramid Vision Transformer: A Versatile Backbone for Dense Prediction without
Convolutions, ICCV 2021.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vitc.models.architectures.float_pvt import PVTTwinConfig
from vitc.models.preprocessing import Preprocessing
from vitc.models.taps import tap
from vitc.models.twins.block import Attention, Block, NormedPatches
from vitc.models.twins.twin import Twin

__all__ = ["PVTTwin"]


class _ReducedAttention(Attention):
    """All tokens attend keys that are R x R places of the map together.

    Args:
        width: C, channels.
        heads: h.
        size: Rows and columns of the map.
        reduction: R.
        eps: Of the reduced tokens' norm.
    """

    def __init__(
        self, width: int, heads: int, size: tuple[int, int], reduction: int, eps: float
    ) -> None:
        super().__init__(width, heads)
        del self.qkv
        self.size = size
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.reduced = reduction > 1
        if self.reduced:
            self.sr = nn.Conv2d(width, width, reduction, reduction)
            self.norm = nn.LayerNorm(width, eps=eps)

    def parts(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `Attention.parts`."""
        held = u
        if self.reduced:
            on_map = torch.unflatten(u.transpose(1, 2), 2, self.size)
            held = self.norm(self.sr(on_map).flatten(2).transpose(1, 2))
        (q,) = self.by_head(self.q(u), 1)
        k, v = self.by_head(self.kv(held), 2)
        return q, k, v


class _Stage(nn.Module):
    def __init__(self, config: PVTTwinConfig, index: int) -> None:
        super().__init__()
        width, size = config.widths[index], config.maps[index]
        self.last = index == len(config.widths) - 1
        self.size = size
        self.name = f"stages.{index}"
        inputs = config.widths[index - 1] if index else 3
        self.patch_embed = NormedPatches(config.patch_sizes[index], inputs, width, config.side_eps)
        if self.last:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, size[0] * size[1] + self.last, width))
        self.blocks = nn.Sequential(
            *(
                Block(
                    _ReducedAttention(
                        width,
                        config.heads[index],
                        size,
                        config.reductions[index],
                        config.side_eps,
                    ),
                    config.hidden[index],
                    eps=config.bn_eps,
                    name=f"{self.name}.blocks.{i}",
                )
                for i in range(config.depths[index])
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """A map [B, C, H, W] to the next, or to tokens [B, N, C] in the last stage."""
        patches = self.patch_embed(x)
        if self.last:
            patches = torch.cat((self.cls_token.expand(x.shape[0], -1, -1), patches), dim=1)
        tokens: Tensor = self.blocks(tap(f"{self.name}.embedding", patches + self.pos_embed))
        return tokens if self.last else torch.unflatten(tokens.transpose(1, 2), 2, self.size)


class PVTTwin(Twin):
    """The twin of PVT; arguments are those of `Network`."""

    config: PVTTwinConfig

    def __init__(
        self,
        config: PVTTwinConfig,
        preprocessing: Preprocessing | None = None,
        labels: Sequence[str] | None = None,
    ) -> None:
        super().__init__(config, preprocessing, labels)
        self.stages = nn.Sequential(*(_Stage(config, s) for s in range(len(config.widths))))
        self.norm = nn.LayerNorm(config.widths[-1], eps=config.bn_eps)
        self.head = nn.Linear(config.widths[-1], config.classes)
        self._begin()

    def trunk(self, image: Tensor) -> Tensor:
        """See `Twin.trunk`."""
        self.check_images(image)
        tokens: Tensor = self.stages(image)
        return tokens

    def on_map(self, tokens: Tensor) -> Tensor:
        """See `Twin.on_map`."""
        return torch.unflatten(tokens[:, 1:], 1, self.config.maps[-1])

    def maps(self, image: Tensor) -> list[Tensor]:
        """See `Network.maps`."""
        self.check_images(image)
        x, made = image, []
        for stage in self.stages:
            x = stage(x)
            made.append(x)
        return [*made[:-1], self.on_map(made[-1]).permute(0, 3, 1, 2)]

    def forward(self, image: Tensor) -> Tensor:
        """Normalised images [B, 3, H, W] to logits [B, classes].

        Raises:
            VitcError: If the images are not of the network's size.
        """
        return tap("logits", self.head(self.norm(self.trunk(image))[:, 0]))
