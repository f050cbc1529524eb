"""NesT: attention in blocks of tokens that are merged between levels (Zhang et al., AAAI 2022)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from vitc.models.account import PIXELS, LayerAccount, classifier, in_fp32
from vitc.models.architectures.entry import Architecture, Shapes
from vitc.models.architectures.float_nest import NesTTwinConfig
from vitc.models.architectures.staged import (
    BETWEEN,
    Stage,
    StagedConfig,
    block_layers,
    merge_of,
    merged,
    shape_of,
    square,
    staged_sizes,
)
from vitc.models.config import Preset
from vitc.models.preprocessing import SMALL_PICTURES, Preprocessing

__all__ = ["NEST", "NestConfig"]


@dataclass(frozen=True, kw_only=True)
class NestConfig(StagedConfig):
    """Sizes of a binarized NesT: the map is halved between levels, and a block is the last map.

    Raises:
        VitcError: If the sizes contradict each other.
    """

    arch: str = "nest"

    def _check_map(self) -> None:
        self._check_halved()

    @property
    def map(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.sides[0] // self.patch_size, self.sides[1] // self.patch_size

    @property
    def block(self) -> tuple[int, int]:
        """Rows and columns of a block."""
        halvings = len(self.widths) - 1
        return self.map[0] >> halvings, self.map[1] >> halvings

    @property
    def stages(self) -> tuple[Stage, ...]:
        """What each level is."""
        return tuple(
            Stage(
                map=(self.map[0] >> level, self.map[1] >> level),
                width=width,
                heads=heads,
                depth=depth,
                hidden=hidden,
                window=self.block,
                mixed=self.block,
            )
            for level, (width, heads, depth, hidden) in enumerate(
                zip(self.widths, self.heads, self.depths, self.hidden, strict=True)
            )
        )


def _sizes(shapes: Shapes) -> dict[str, Any]:
    sizes = staged_sizes(shapes)
    levels = len(sizes["widths"])
    _, _, block, _ = shape_of(shapes, "stages.0.pos_embed", 4)
    patch = shape_of(shapes, "patch_embed.proj.weight", 4)[2]
    side = square(block, "A block") << (levels - 1)
    merge = merge_of(shapes, "stages.1.pool.conv.move.bias")
    return {**sizes, "image_size": side * patch, "patch_size": patch, "merge": merge}


def _layers(config: NestConfig) -> Iterator[LayerAccount]:
    patch = 3 * config.patch_size**2
    for index, stage in enumerate(config.stages):
        C, N = stage.width, stage.tokens
        if index == 0:
            yield in_fp32(
                "embedding",
                "embedding",
                parameters=C * patch + C + N * C,
                fp_macs=N * C * patch,
                why=PIXELS,
            )
        else:
            before = config.widths[index - 1]
            name, weights = f"stages.{index}", 9 * before * C
            binary = config.merge == "binary"
            if binary:
                yield from merged(
                    config,
                    f"{name}.pool.conv",
                    rows=4 * N,
                    inputs=9 * before,
                    outputs=C,
                    moves=before,
                )
            yield in_fp32(
                f"{name}.pool",
                *(() if binary else (f"{name}.pool.conv",)),
                f"{name}.pool.norm",
                f"{name}.embedding",
                parameters=2 * C + N * C + (0 if binary else weights + C),
                fp_macs=0 if binary else 4 * N * weights,
                why=BETWEEN,
            )
        yield from block_layers(config, index)
    last = config.stages[-1]
    yield from classifier(
        rows=last.tokens, width=last.width, classes=config.classes, norm=config.norm
    )


def _twin(config: NestConfig) -> NesTTwinConfig:
    return NesTTwinConfig(**config.twin_sizes())


NEST: Final = Architecture(
    name="nest",
    config=NestConfig,
    presets=(
        Preset(
            "nest-tiny",
            NestConfig(
                image_size=224,
                patch_size=4,
                widths=(96, 192, 384),
                heads=(3, 6, 12),
                depths=(2, 2, 8),
                hidden=(384, 768, 1536),
                classes=1000,
                si=True,
            ),
            Preprocessing(),
            "NesT width 96/192/384, 2/2/8 blocks, 224 px, SI",
        ),
        Preset(
            "micro-nest",
            NestConfig(
                image_size=32,
                patch_size=4,
                widths=(64, 128),
                heads=(2, 4),
                depths=(1, 2),
                hidden=(128, 256),
                classes=10,
                si=True,
            ),
            SMALL_PICTURES,
            "NesT width 64/128, 32 px, 64/16 tokens, SI: trains on digits in minutes",
        ),
    ),
    tensors=("head.weight", "patch_embed.proj.weight", "stages.0.pos_embed"),
    sizes=_sizes,
    layers=_layers,
    twin=_twin,
)
