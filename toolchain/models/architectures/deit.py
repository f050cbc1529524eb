"""DeiT: one stage, all tokens attend each other, a class token (SI-BiViT's own backbone)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from vitc.errors import VitcError
from vitc.models.account import (
    PIXELS,
    Binary,
    LayerAccount,
    attention,
    classifier,
    in_fp32,
    spatial,
    two_layer,
)
from vitc.models.architectures.entry import Architecture, Shapes, norm_of
from vitc.models.architectures.float_deit import DeiTTwinConfig
from vitc.models.config import NetworkConfig, Preset
from vitc.models.described import (
    LARGEST,
    Sides,
    block_sizes,
    check_multiple,
    numbered,
    shown,
)
from vitc.models.preprocessing import SMALL_PICTURES, Preprocessing

__all__ = ["DEIT", "ModelConfig", "deit_layers"]

_MOST_VALUES: Final = 1 << 28
"""Tokens times width."""

_TWIN_RATIO: Final = 4
"""MLP ratio of the published networks."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig(NetworkConfig):
    """Sizes of a binarized DeiT.

    Attributes:
        patch_size: Side of a patch in pixels.
        width: C, channels of a token.
        depth: Number of blocks.
        heads: h, attention heads; the head width is C / h.
        hidden: M, hidden channels of the MLP (MLP ratio times C).
        si_hidden: Hidden tokens of the spatial branch (0 without SI; the official code uses N).

    Raises:
        VitcError: If the sizes contradict each other.
    """

    arch: str = "sibivit"
    patch_size: int
    width: int
    depth: int
    heads: int
    hidden: int
    si_hidden: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_sizes("patch_size", "width", "depth", "heads", "hidden")
        if type(self.si_hidden) is not int:
            raise VitcError(f"si_hidden must be an integer, found {shown(self.si_hidden)}.")
        if not 0 <= self.si_hidden <= LARGEST or self.tokens * self.width > _MOST_VALUES:
            raise VitcError(
                f"{self.tokens} tokens of width {self.width} with {self.si_hidden} hidden tokens "
                "are more than vitc takes."
            )
        check_multiple(self.sides, self.patch_size, f"the patch size {self.patch_size}")
        if self.width % self.heads:
            raise VitcError(f"The width {self.width} is not a multiple of {self.heads} heads.")
        if self.si != (self.si_hidden > 0):
            raise VitcError(
                f"si is {self.si} but si_hidden is {self.si_hidden}; SI needs a positive hidden "
                "size, and no SI needs 0."
            )

    @property
    def tokens(self) -> int:
        """N, patches plus the class token."""
        height, width = self.sides
        return (height // self.patch_size) * (width // self.patch_size) + 1

    @property
    def head_width(self) -> int:
        """D, channels of a head."""
        return self.width // self.heads

    @property
    def mlp_ratio(self) -> float:
        """R, hidden channels over channels."""
        return self.hidden / self.width

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return self.depth

    @property
    def widest(self) -> int:
        """Channels of a token."""
        return self.width

    def shape(self) -> str:
        """The sizes of its blocks in a few words."""
        return block_sizes(self.depth, self.width, self.heads, self.hidden, self.tokens)

    def replace(
        self,
        *,
        image_size: Sides | None = None,
        classes: int | None = None,
        depth: int | None = None,
        mlp_ratio: int | None = None,
        si: bool | None = None,
        weight_bits: int | None = None,
        norm: str | None = None,
        merge: str | None = None,
    ) -> ModelConfig:
        """This configuration with some sizes changed; SI's hidden size follows the tokens."""
        if merge is not None:
            raise VitcError(
                "DeiT has one stage, so there is nothing to merge between stages.",
                "Leave --merge away, or choose swin, pvt or nest.",
            )
        changed = dataclasses.replace(
            self,
            image_size=self.image_size if image_size is None else image_size,
            classes=self.classes if classes is None else classes,
            depth=self.depth if depth is None else depth,
            hidden=self.hidden if mlp_ratio is None else mlp_ratio * self.width,
            weight_bits=self.weight_bits if weight_bits is None else weight_bits,
            norm=self.norm if norm is None else norm,
        )
        with_si = self.si if si is None else si
        return dataclasses.replace(changed, si=with_si, si_hidden=changed.tokens if with_si else 0)


def _sizes(shapes: Shapes) -> dict[str, Any]:
    ranks = {
        "pos_embed": 3,
        "patch_embed.proj.weight": 4,
        "blocks.0.attn.moveq.bias": 4,
        "blocks.0.mlp.fc1.weight": 2,
        "head.weight": 2,
    }
    wrong = [
        f"{name} is missing" if name not in shapes else f"{name} has shape {shapes[name]}"
        for name, rank in ranks.items()
        if len(shapes.get(name, ())) != rank
    ]
    spatial = shapes.get("blocks.0.mlp2.fc1.weight")
    if spatial is not None and len(spatial) != 2:
        wrong.append(f"blocks.0.mlp2.fc1.weight has shape {spatial}")
    if wrong:
        raise VitcError(
            f"This is not the state dict of an SI-BiViT network: {'; '.join(wrong)}.",
            "vitc reads its own .safetensors and official SI-BiViT checkpoints.",
        )
    tokens, width = shapes["pos_embed"][1:]
    patch = shapes["patch_embed.proj.weight"][2]
    grid = math.isqrt(max(tokens - 1, 0))
    if grid < 1 or grid * grid + 1 != tokens:
        raise VitcError(
            f"pos_embed has {tokens} tokens, which is not a class token and a square of patches."
        )
    return {
        "image_size": grid * patch,
        "patch_size": patch,
        "width": width,
        "depth": numbered(shapes, "blocks"),
        "heads": shapes["blocks.0.attn.moveq.bias"][1],
        "hidden": shapes["blocks.0.mlp.fc1.weight"][0],
        "classes": shapes["head.weight"][0],
        "si": spatial is not None,
        "si_hidden": 0 if spatial is None else spatial[0],
        "norm": norm_of(shapes),
    }


def deit_layers(config: ModelConfig, codes: int = 0) -> Iterator[LayerAccount]:
    """Its layers, with rows behind the tokens that the spatial branch leaves alone."""
    C, N, patch = config.width, config.tokens, 3 * config.patch_size**2
    embedding = C * patch + C + C + N * C
    yield in_fp32(
        "embedding", "embedding", parameters=embedding, fp_macs=(N - 1) * C * patch, why=PIXELS
    )
    rows = N + codes
    binary = Binary(config.weight_bits, config.scheme)
    for i in range(config.depth):
        name = f"blocks.{i}"
        yield from attention(
            f"{name}.attn",
            tokens=rows,
            group=rows,
            width=C,
            heads=config.heads,
            binary=binary,
            norm=config.norm,
        )
        yield from two_layer(
            f"{name}.mlp",
            rows=rows,
            inputs=C,
            hidden=config.hidden,
            binary=binary,
            norm=config.norm,
        )
        if config.si:
            yield from spatial(
                f"{name}.si", width=C, group=N, hidden=config.si_hidden, binary=binary
            )
    yield from classifier(rows=rows, width=C, classes=config.classes, norm=config.norm)


def _twin(config: ModelConfig) -> DeiTTwinConfig:
    return DeiTTwinConfig(
        image_size=config.image_size,
        patch_size=config.patch_size,
        width=config.width,
        depth=config.depth,
        heads=config.heads,
        hidden=_TWIN_RATIO * config.width,
        classes=config.classes,
    )


def _preset(name: str, width: int, heads: int) -> Preset:
    config = ModelConfig(
        image_size=224,
        patch_size=16,
        width=width,
        depth=12,
        heads=heads,
        hidden=2 * width,
        classes=1000,
        si=True,
        si_hidden=197,
    )
    return Preset(name, config, Preprocessing(), f"DeiT width {width}, 12 blocks, 224 px, SI")


_MICRO = Preset(
    name="micro",
    config=ModelConfig(
        image_size=32,
        patch_size=8,
        width=64,
        depth=3,
        heads=2,
        hidden=128,
        classes=10,
        si=True,
        si_hidden=17,
    ),
    preprocessing=SMALL_PICTURES,
    summary="width 64, 32 px, 17 tokens, SI: trains on digits in minutes on a CPU",
)

_MINI = Preset(
    name="mini",
    config=ModelConfig(
        image_size=32,
        patch_size=4,
        width=128,
        depth=6,
        heads=4,
        hidden=256,
        classes=10,
        si=True,
        si_hidden=65,
    ),
    preprocessing=SMALL_PICTURES,
    summary="width 128, 6 blocks, 32 px, 65 tokens, SI: small photos such as CIFAR-10",
)

DEIT: Final = Architecture(
    name="sibivit",
    config=ModelConfig,
    presets=(
        _preset("deit-tiny", 192, 3),
        _preset("deit-small", 384, 6),
        _preset("deit-base", 768, 12),
        _MICRO,
        _MINI,
    ),
    tensors=("head.weight", "patch_embed.proj.weight", "pos_embed"),
    sizes=_sizes,
    layers=deit_layers,
    twin=_twin,
)
