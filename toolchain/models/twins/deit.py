"""The full-precision DeiT or ViT, with one token before the patches or, distilled, two.

Touvron et al., Training data-efficient image transformers, ICML 2021.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vitc.models.architectures.float_deit import DeiTTwinConfig
from vitc.models.layers.codes import Codes
from vitc.models.layers.patch_embed import PatchEmbed
from vitc.models.preprocessing import Preprocessing
from vitc.models.taps import tap
from vitc.models.twins.block import Attention, Block
from vitc.models.twins.twin import Twin

__all__ = ["DeiTTwin"]


class DeiTTwin(Twin):
    """The twin of DeiT; arguments are those of `Network`, and `codes` as of `SIBiViT`."""

    config: DeiTTwinConfig

    def __init__(
        self,
        config: DeiTTwinConfig,
        preprocessing: Preprocessing | None = None,
        labels: Sequence[str] | None = None,
        *,
        codes: int = 0,
    ) -> None:
        super().__init__(config, preprocessing, labels)
        C = config.width
        self.cls_token = nn.Parameter(torch.zeros(1, 1, C))
        if config.distilled:
            self.dist_token = nn.Parameter(torch.zeros(1, 1, C))
        self.pos_embed = nn.Parameter(torch.zeros(1, config.tokens, C))
        self.patch_embed = PatchEmbed(config.patch_size, C)
        self.blocks = nn.Sequential(
            *(
                Block(
                    Attention(C, config.heads),
                    config.hidden,
                    eps=config.bn_eps,
                    name=f"blocks.{i}",
                )
                for i in range(config.depth)
            )
        )
        self.norm = nn.LayerNorm(C, eps=config.bn_eps)
        self.head = nn.Linear(C, config.classes)
        if config.distilled_head:
            self.head_dist = nn.Linear(C, config.classes)
        self._begin()
        self.codes = Codes(codes, C) if codes else None

    def embed(self, image: Tensor) -> Tensor:
        """Images [B, 3, H, W] to tokens [B, N, C].

        Raises:
            VitcError: If the images are not of the network's size.
        """
        self.check_images(image)
        before = [self.cls_token]
        if self.config.distilled:
            before.append(self.dist_token)
        first = [token.expand(image.shape[0], -1, -1) for token in before]
        x = torch.cat((*first, self.patch_embed(image)), dim=1) + self.pos_embed
        return tap("embedding", x if self.codes is None else self.codes(x))

    def trunk(self, image: Tensor) -> Tensor:
        """See `Twin.trunk`."""
        tokens: Tensor = self.blocks(self.embed(image))
        return tokens

    def on_map(self, tokens: Tensor) -> Tensor:
        """See `Twin.on_map`."""
        patches = tokens[:, self.config.tokens - self.config.patches :]
        return torch.unflatten(patches, 1, self.config.map)

    def maps(self, image: Tensor) -> list[Tensor]:
        """See `Network.maps`."""
        return [self.on_map(self.trunk(image)).permute(0, 3, 1, 2)]

    def forward(self, image: Tensor) -> Tensor:
        """Normalised images [B, 3, H, W] to logits [B, classes].

        Raises:
            VitcError: If the images are not of the network's size.
        """
        x = self.norm(self.trunk(image))
        logits: Tensor = self.head(x[:, 0])
        if self.config.distilled_head:
            logits = (logits + self.head_dist(x[:, 1])) / 2
        return tap("logits", logits)
