"""PVT (v1): all tokens attend keys of a map that each stage reduces (Wang et al., ICCV 2021)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from vitc.errors import VitcError
from vitc.models.account import PIXELS, LayerAccount, classifier, in_fp32
from vitc.models.architectures.entry import Architecture, Shapes
from vitc.models.architectures.float_pvt import PVTTwinConfig
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

__all__ = ["PVT", "PVTConfig"]

_MOST_MIXED: Final = 196
_TILE: Final = 14
_LEAST_TILE: Final = 4


@dataclass(frozen=True, kw_only=True)
class PVTConfig(StagedConfig):
    """Sizes of a binarized PVT: the map of patches is halved between stages.

    Attributes:
        reductions: R of each stage; keys and values are those of R x R places together. The last
            stage has a class token and R 1.

    Raises:
        VitcError: If the sizes contradict each other.
    """

    arch: str = "pvt"
    reductions: tuple[int, ...]

    per_stage: ClassVar[tuple[str, ...]] = (*StagedConfig.per_stage, "reductions")

    def _check_map(self) -> None:
        self._check_halved()
        if self.reductions[-1] != 1:
            raise VitcError(
                f"The last stage has a class token, so its R is 1, found {self.reductions[-1]}."
            )
        for stage, reduction in zip(self.stages, self.reductions, strict=True):
            shown = f"A map of {stage.map[0]} x {stage.map[1]} tokens"
            if any(side % reduction for side in stage.map):
                raise VitcError(
                    f"{shown} is not reduced by {reduction}.",
                    "Choose an image size whose maps are multiples of the reductions.",
                )
            if self.si and min(stage.mixed) < _LEAST_TILE and stage.mixed != stage.map:
                raise VitcError(
                    f"{shown} has no tiles of {_LEAST_TILE} to {_TILE} rows and columns for the "
                    "spatial branch.",
                    "Choose another image size, or leave SI away with --no-si.",
                )

    @property
    def stages(self) -> tuple[Stage, ...]:
        """What each stage is."""
        stages = []
        for index, (width, heads, depth, hidden, reduction) in enumerate(
            zip(self.widths, self.heads, self.depths, self.hidden, self.reductions, strict=True)
        ):
            rows, columns = (side // self.patch_size >> index for side in self.sides)
            last = index == len(self.widths) - 1
            whole = last or rows * columns <= _MOST_MIXED
            stages.append(
                Stage(
                    map=(rows, columns),
                    width=width,
                    heads=heads,
                    depth=depth,
                    hidden=hidden,
                    window=(rows, columns),
                    mixed=(rows, columns) if whole else (_tile(rows), _tile(columns)),
                    reduction=reduction,
                    class_token=last,
                )
            )
        return tuple(stages)


def _tile(side: int) -> int:
    """The largest divisor of a map's side that is no larger than a tile may be."""
    return max(size for size in range(1, _TILE + 1) if side % size == 0)


def _sizes(shapes: Shapes) -> dict[str, Any]:
    sizes = staged_sizes(shapes)
    stages = range(len(sizes["widths"]))
    patch = shape_of(shapes, "stages.0.patch_embed.proj.weight", 4)[2]
    tokens = shape_of(shapes, "stages.0.pos_embed", 3)[1] - (len(stages) == 1)
    reduced = [shapes.get(f"stages.{s}.blocks.0.attn.sr.weight", (0, 0, 1, 1)) for s in stages]
    return {
        **sizes,
        "image_size": square(tokens, "The first stage") * patch,
        "patch_size": patch,
        "reductions": tuple(shape[2] for shape in reduced),
        "merge": merge_of(shapes, "stages.1.patch_embed.proj.move.bias"),
    }


def _layers(config: PVTConfig) -> Iterator[LayerAccount]:
    inputs = 3 * config.patch_size**2
    for index, stage in enumerate(config.stages):
        C, N = stage.width, stage.tokens
        patches = N - stage.class_token
        name = f"stages.{index}.patch_embed"
        convolution, fp_macs = C * inputs + C, patches * C * inputs
        if index and config.merge == "binary":
            yield from merged(
                config, f"{name}.proj", rows=patches, inputs=inputs, outputs=C, moves=inputs // 4
            )
            convolution = fp_macs = 0
        yield in_fp32(
            f"stages.{index}.embedding",
            f"{name}.norm",
            f"stages.{index}.embedding",
            parameters=convolution + 2 * C + N * C + C * stage.class_token,
            fp_macs=fp_macs,
            why=BETWEEN if index else PIXELS,
        )
        yield from block_layers(config, index)
        inputs = 4 * C
    last = config.stages[-1]
    yield from classifier(
        rows=last.tokens, width=last.width, classes=config.classes, norm=config.norm
    )


def _twin(config: PVTConfig) -> PVTTwinConfig:
    sizes = config.twin_sizes()
    patch = sizes.pop("patch_size")
    # The published network has a ratio of 8 in its first stages, as the binarized one.
    sizes["hidden"] = tuple(map(max, sizes["hidden"], config.hidden))
    halved = (2,) * (len(config.widths) - 1)
    return PVTTwinConfig(**sizes, patch_sizes=(patch, *halved), reductions=config.reductions)


PVT: Final = Architecture(
    name="pvt",
    config=PVTConfig,
    presets=(
        Preset(
            "pvt-tiny",
            PVTConfig(
                image_size=224,
                patch_size=4,
                widths=(64, 128, 320, 512),
                depths=(2, 2, 2, 2),
                heads=(1, 2, 5, 8),
                hidden=(512, 1024, 1280, 2048),
                reductions=(8, 4, 2, 1),
                classes=1000,
                si=True,
            ),
            Preprocessing(),
            "PVT width 64/128/320/512, 2/2/2/2 blocks, 224 px, SI",
        ),
        Preset(
            "micro-pvt",
            PVTConfig(
                image_size=32,
                patch_size=2,
                widths=(32, 64, 128),
                depths=(1, 1, 2),
                heads=(1, 2, 4),
                hidden=(128, 256, 256),
                reductions=(4, 2, 1),
                classes=10,
                si=True,
            ),
            SMALL_PICTURES,
            "PVT width 32/64/128, 32 px, 256/64/17 tokens, SI: trains on digits in minutes",
        ),
    ),
    tensors=(
        "head.weight",
        "stages.0.patch_embed.proj.weight",
        "stages.0.pos_embed",
        "stages.0.blocks.0.attn.moveq.bias",
    ),
    sizes=_sizes,
    layers=_layers,
    twin=_twin,
)
