"""What backbones of several stages share: their blocks, their forward pass, their head."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor, nn

from vitc.models.architectures.staged import StagedConfig
from vitc.models.binary_linear import BinaryLinear
from vitc.models.layers.attention import BinaryAttention
from vitc.models.layers.block import Block
from vitc.models.layers.groups import Grouping, Rectangles
from vitc.models.layers.norm import stream_norm
from vitc.models.layers.patch_embed import PatchEmbed
from vitc.models.layers.reduced_attention import ReducedAttention
from vitc.models.network import Network
from vitc.models.schemes import scheme
from vitc.models.taps import tap

__all__ = ["StagedNetwork", "between", "rectangles", "stage_blocks"]

_UNSHIFTED: Final = (0, 0)

Cut = Callable[[tuple[int, int], tuple[int, int], tuple[int, int]], Grouping | None]
"""Map, rectangle and shift to how the stream stands in such rectangles; None for one rectangle."""


def rectangles(
    map: tuple[int, int],  # noqa: A002 - as in `Stage`
    size: tuple[int, int],
    shift: tuple[int, int],
) -> Rectangles | None:
    """Rectangles of a row-major stream; None for one."""
    return None if size == map else Rectangles(map, size, shift)


def between(
    config: StagedConfig, inputs: int, outputs: int, kernel: int | None = None
) -> BinaryLinear:
    """The binary linear of `merge` ``binary``, which moves each input channel.

    Args:
        config: Of the network.
        inputs: Input channels.
        outputs: Output channels.
        kernel: Side of a convolution; None for a linear.
    """
    rules = scheme(config.scheme, elastic=config.elastic)
    return BinaryLinear(inputs, outputs, rules, config.weight_bits, moved=True, kernel=kernel)


def stage_blocks(config: StagedConfig, index: int, cut: Cut) -> nn.Sequential:
    """The blocks of a stage.

    Args:
        config: Of the network.
        index: Of the stage.
        cut: How its tokens stand in groups.
    """
    stage = config.stages[index]
    return nn.Sequential(*(_block(config, index, i, cut) for i in range(stage.depth)))


def _block(config: StagedConfig, index: int, block: int, cut: Cut) -> Block:
    stage, name = config.stages[index], f"stages.{index}.blocks.{block}"
    shift = stage.shift if block % 2 else _UNSHIFTED
    apart = Rectangles(stage.map, stage.window, shift).excluded() if any(shift) else None
    rules = scheme(config.scheme, elastic=config.elastic)
    attention: BinaryAttention
    if stage.reduction is not None:
        attention = ReducedAttention(
            stage.width,
            stage.heads,
            stage.tokens,
            size=stage.map,
            reduction=stage.reduction,
            scheme=rules,
            weight_bits=config.weight_bits,
            norm=config.norm,
            merge=config.merge,
            eps=config.bn_eps,
            name=f"{name}.attn",
        )
    else:
        attention = BinaryAttention(
            stage.width,
            stage.heads,
            stage.group,
            scheme=rules,
            weight_bits=config.weight_bits,
            name=f"{name}.attn",
            window=stage.window if stage.relative else None,
            excluded=apart,
        )
    return Block(
        attention,
        width=stage.width,
        tokens=stage.tokens,
        hidden=stage.hidden,
        si_tokens=stage.si_tokens if config.si else 0,
        si_hidden=stage.si_tokens,
        scheme=rules,
        weight_bits=config.weight_bits,
        eps=config.bn_eps,
        name=name,
        norm=config.norm,
        groups=cut(stage.map, stage.window, shift),
        si_groups=cut(stage.map, stage.mixed, _UNSHIFTED),
    )


class StagedNetwork(Network):
    """A network of stages, each of which takes the residual stream of the one before.

    Arguments are those of `Network`. A subclass has the stages, and `patch_embed` or an `embed` of
    its own. The head acts on the mean of the tokens, or what the `pool` of a subclass takes.

    Raises:
        VitcError: If the scheme is unknown, or as `Network`.
    """

    config: StagedConfig
    patch_embed: PatchEmbed
    stages: nn.ModuleList

    def add_head(self) -> None:
        """Put the last norm and the head behind the stages."""
        last = self.config.stages[-1]
        self.norm = stream_norm(self.config.norm, last.tokens, last.width, self.config.bn_eps)
        self.head = nn.Linear(last.width, self.config.classes)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(self, image: Tensor) -> Tensor:
        """Normalised images [B, 3, H, W] to logits [B, classes].

        Raises:
            VitcError: If the images are not of the network's size.
        """
        logits: Tensor = self.head(self.pool(self.stream(image)))
        return tap("logits", logits)

    def stream(self, image: Tensor) -> Tensor:
        """Images [B, 3, H, W] to what the last norm gives for every token of the last stage.

        Raises:
            VitcError: If the images are not of the network's size.
        """
        self.check_images(image)
        x = self.embed(image)
        for stage in self.stages:
            x = stage(x)
        rows: Tensor = self.norm(x)
        return rows

    def maps(self, image: Tensor) -> list[Tensor]:
        """See `Network.maps`."""
        self.check_images(image)
        x, made = self.embed(image), []
        for index, stage in enumerate(self.stages):
            x = stage(x)
            made.append(self.on_map(x, index).permute(0, 3, 1, 2))
        return made

    def on_map(self, x: Tensor, index: int) -> Tensor:
        """The stream [B, N, C] of a stage as a map [B, H, W, C], without class token."""
        stage = self.config.stages[index]
        return torch.unflatten(x[:, 1:] if stage.class_token else x, 1, stage.map)

    def embed(self, image: Tensor) -> Tensor:
        """Images [B, 3, H, W] to what the first stage takes."""
        patches: Tensor = self.patch_embed(image)
        return patches

    def pool(self, x: Tensor) -> Tensor:
        """Normalised tokens [B, N, C] to what is classified, [B, C]."""
        return x.mean(1)
