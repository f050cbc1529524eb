"""SI-BiViT: a binarized vision transformer with spatial interaction (ACM MM 2024), on DeiT.

Parameter names are those of the official checkpoints. In eval mode everything between two binarized
values is an exact integer computed by the ops of `vitc.models.ops`, and each value that later
stages must reproduce is tapped; in training mode the same layers run on signs as floats, with
straight-through gradients (`vitc.models.layers.signs`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vitc.models.architectures.deit import ModelConfig
from vitc.models.layers.attention import BinaryAttention
from vitc.models.layers.block import Block
from vitc.models.layers.codes import Codes
from vitc.models.layers.norm import stream_norm
from vitc.models.layers.patch_embed import PatchEmbed
from vitc.models.network import Network
from vitc.models.preprocessing import Preprocessing
from vitc.models.schemes import scheme
from vitc.models.taps import tap

__all__ = ["SIBiViT"]


class SIBiViT(Network):
    """The classification network on DeiT's backbone; arguments are those of `Network`.

    Args:
        config: As of `Network`.
        preprocessing: As of `Network`.
        labels: As of `Network`.
        codes: Learnt rows behind the tokens: they attend and are attended and have an MLP, and the
            spatial branch leaves them alone (retrieval; 0 elsewhere).

    Raises:
        VitcError: If the scheme is unknown, or as `Network`.
    """

    config: ModelConfig

    def __init__(
        self,
        config: ModelConfig,
        preprocessing: Preprocessing | None = None,
        labels: Sequence[str] | None = None,
        *,
        codes: int = 0,
    ) -> None:
        super().__init__(config, preprocessing, labels)
        rows = config.tokens + codes
        rules = scheme(config.scheme, elastic=config.elastic)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, config.tokens, config.width))
        self.patch_embed = PatchEmbed(config.patch_size, config.width)
        self.blocks = nn.Sequential(
            *(
                Block(
                    BinaryAttention(
                        config.width,
                        config.heads,
                        rows,
                        scheme=rules,
                        weight_bits=config.weight_bits,
                        name=f"blocks.{index}.attn",
                    ),
                    width=config.width,
                    tokens=rows,
                    hidden=config.hidden,
                    si_tokens=config.tokens if config.si else 0,
                    si_hidden=config.si_hidden,
                    scheme=rules,
                    weight_bits=config.weight_bits,
                    eps=config.bn_eps,
                    name=f"blocks.{index}",
                    norm=config.norm,
                    codes=codes,
                )
                for index in range(config.depth)
            )
        )
        self.norm = stream_norm(config.norm, rows, config.width, config.bn_eps)
        self.head = nn.Linear(config.width, config.classes)
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
        self.codes = Codes(codes, config.width) if codes else None

    def embed(self, image: Tensor) -> Tensor:
        """Images [B, 3, H, W] to the residual stream [B, N, C], codes behind the tokens.

        Raises:
            VitcError: If the images are not of the network's size.
        """
        self.check_images(image)
        cls = self.cls_token.expand(image.shape[0], -1, -1)
        x = torch.cat((cls, self.patch_embed(image)), dim=1) + self.pos_embed
        x = x if self.codes is None else self.codes(x)
        return tap("embedding", x)

    def stream(self, image: Tensor) -> Tensor:
        """Images [B, 3, H, W] to what the last norm gives for every row, [B, N, C]."""
        rows: Tensor = self.norm(self.blocks(self.embed(image)))
        return rows

    def classify(self, x: Tensor) -> Tensor:
        """Residual stream [B, N, C] to logits [B, classes]."""
        logits: Tensor = self.head(self.norm(x)[:, 0])
        return tap("logits", logits)

    def maps(self, image: Tensor) -> list[Tensor]:
        """See `Network.maps`."""
        stream: Tensor = self.blocks(self.embed(image))
        sides = [side // self.config.patch_size for side in self.config.sides]
        return [torch.unflatten(stream[:, 1:], 1, sides).permute(0, 3, 1, 2)]

    def forward(self, image: Tensor) -> Tensor:
        """Normalised images [B, 3, H, W] to logits [B, classes].

        Raises:
            VitcError: If the images are not of the network's size.
        """
        stream: Tensor = self.blocks(self.embed(image))
        return self.classify(stream)
