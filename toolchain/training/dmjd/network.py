"""Encoder and branches together: masked views in, two losses out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import torch
from torch import Tensor, nn

from vitc.errors import VitcError
from vitc.models.network import Network
from vitc.models.twins.deit import DeiTTwin
from vitc.training.dmjd.branches import Distiller, Reconstructor, xavier
from vitc.training.dmjd.masking import Views
from vitc.training.dmjd.positions import sine_positions

__all__ = ["MaskedEncoder", "Pretrained", "encode"]

_STD: Final = 0.02


def encode(
    tokens: Tensor,
    views: Views,
    blocks: Iterable[nn.Module],
    norm: nn.Module,
    before: Tensor | None = None,
) -> Tensor:
    """Visible tokens through a transformer; masked ones cost nothing.

    Args:
        tokens: With their positions, [B, tokens, C].
        views: What is visible.
        blocks: Of the transformer.
        norm: After them.
        before: A token [1, 1, C] that every view sees first; it is dropped at the end.

    Returns:
        [K * B, visible, C].
    """
    x = tokens.repeat(len(views.keep) // max(len(tokens), 1), 1, 1)
    x = torch.gather(x, 1, views.keep[..., None].expand(-1, -1, x.shape[-1]))
    if before is not None:
        x = torch.cat((before.expand(len(x), -1, -1), x), dim=1)
    for block in blocks:
        x = block(x)
    encoded: Tensor = norm(x if before is None else x[:, 1:])
    return encoded


class MaskedEncoder(nn.Module):
    """A twin that encodes any subset of its tokens.

    Its class token is seen with every view and learns with the rest; positions are sines and do not
    learn, nor does the head, which is 0.

    Args:
        twin: To be pre-trained; its weights are made anew.

    Raises:
        VitcError: If the twin needs all of its tokens.
    """

    def __init__(self, twin: Network) -> None:
        super().__init__()
        if not isinstance(twin, DeiTTwin) or twin.config.distilled:
            raise VitcError(
                f"A twin of the architecture {twin.config.arch} cannot read some of its tokens.",
                "Pre-training by masked views takes a DeiT preset; windows and maps need all.",
            )
        self.twin = twin
        rows, columns = self.grid
        xavier(twin.blocks)
        nn.init.normal_(twin.cls_token, std=_STD)
        weight = twin.patch_embed.proj.weight
        nn.init.xavier_uniform_(weight.data.view(len(weight), -1))
        with torch.no_grad():
            twin.pos_embed.zero_()
            twin.pos_embed[0, 1:] = sine_positions(twin.config.width, rows, columns)
        twin.pos_embed.requires_grad_(False)
        nn.init.zeros_(twin.head.weight)
        nn.init.zeros_(twin.head.bias)
        twin.head.requires_grad_(False)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the map of tokens."""
        return self.twin.config.map

    def forward(self, images: Tensor, views: Views) -> Tensor:
        """Normalised images [B, 3, H, W] to encoded visible tokens [K * B, visible, C]."""
        twin = self.twin
        first = twin.cls_token + twin.pos_embed[:, :1]
        tokens = twin.patch_embed(images) + twin.pos_embed[:, 1:]
        return encode(tokens, views, twin.blocks, twin.norm, first)


class Pretrained(nn.Module):
    """An encoder with its branches.

    Args:
        encoder: To be pre-trained.
        targets: Numbers that are predicted of a token.
        inner: Channels of the branches; half of the encoder's by default.
        depth: Blocks of the invisible branch.
        heads: Heads of these blocks; the encoder's by default.
        distil: Whether there is a visible branch.

    Raises:
        VitcError: If the branches' channels do not divide into heads, or are no multiple of 4.
    """

    def __init__(
        self,
        encoder: MaskedEncoder,
        targets: int,
        *,
        inner: int | None = None,
        depth: int = 1,
        heads: int | None = None,
        distil: bool = True,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        width = self.encoder.twin.config.width
        inner = width // 2 if inner is None else inner
        heads = self.encoder.twin.config.heads if heads is None else heads
        if inner % heads:
            raise VitcError(
                f"The branches have {inner} channels and {heads} heads.",
                f"Choose a --decoder-width that is a multiple of {heads} and of 4.",
            )
        self.reconstructor = Reconstructor(width, inner, depth, heads, targets, *self.encoder.grid)
        self.distiller = Distiller(width, inner, targets) if distil else None

    def forward(self, images: Tensor, views: Views) -> tuple[Tensor, Tensor | None]:
        """Predict the targets of the masked and of the visible tokens.

        Args:
            images: Normalised, [B, 3, H, W].
            views: Masked views of them.

        Returns:
            Predictions of all places [K * B, tokens, targets], and of the visible ones in their
            order [K * B, visible, targets], if there is that branch.
        """
        latent = self.encoder(images, views)
        told = None if self.distiller is None else self.distiller(latent)
        return self.reconstructor(latent, views), told
