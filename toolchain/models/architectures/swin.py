"""Swin: attention in windows that every second block shifts (Liu et al., ICCV 2021)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from vitc.errors import VitcError
from vitc.models.account import PIXELS, LayerAccount, classifier, in_fp32
from vitc.models.architectures.entry import Architecture, Shapes
from vitc.models.architectures.float_swin import SwinTwinConfig
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
from vitc.models.described import LARGEST, shown
from vitc.models.preprocessing import SMALL_PICTURES, Preprocessing

__all__ = ["SWIN", "SwinConfig"]


@dataclass(frozen=True, kw_only=True)
class SwinConfig(StagedConfig):
    """Sizes of a binarized Swin.

    Attributes:
        window: Rows and columns of a window in tokens; a map with fewer is one window along that
            side.

    Raises:
        VitcError: If the sizes contradict each other.
    """

    arch: str = "swin"
    window: tuple[int, int]

    def _check_map(self) -> None:
        if (
            not isinstance(self.window, tuple)
            or len(self.window) != 2
            or not all(type(side) is int and 1 <= side <= LARGEST for side in self.window)
        ):
            raise VitcError(f"window must be two positive integers, found {shown(self.window)}.")
        if self.elastic:
            raise VitcError(
                "Swin's scores have a bias of relative positions, and an elastic mask is decided "
                "by integers.",
                "Leave --elastic away, or choose deit, pvt or nest.",
            )
        self._check_halved()
        for stage in self.stages:
            if any(side % own for side, own in zip(stage.map, stage.window, strict=True)):
                raise VitcError(
                    f"A map of {stage.map[0]} x {stage.map[1]} tokens has no whole windows of "
                    f"{stage.window[0]} x {stage.window[1]}.",
                    "Choose an image size whose maps are multiples of the window.",
                )

    @property
    def stages(self) -> tuple[Stage, ...]:
        """What each stage is."""
        stages = []
        for index, (width, heads, depth, hidden) in enumerate(
            zip(self.widths, self.heads, self.depths, self.hidden, strict=True)
        ):
            rows, columns = (side // self.patch_size >> index for side in self.sides)
            window = min(self.window[0], rows), min(self.window[1], columns)
            stages.append(
                Stage(
                    map=(rows, columns),
                    width=width,
                    heads=heads,
                    depth=depth,
                    hidden=hidden,
                    window=window,
                    mixed=window,
                    shift=(
                        window[0] // 2 if rows > window[0] else 0,
                        window[1] // 2 if columns > window[1] else 0,
                    ),
                    relative=True,
                )
            )
        return tuple(stages)


def _sizes(shapes: Shapes) -> dict[str, Any]:
    sizes = staged_sizes(shapes)
    patch = shape_of(shapes, "patch_embed.proj.weight", 4)[2]
    tokens = shape_of(shapes, "stages.0.blocks.0.mlp.movefc1.bias", 3)[1]
    places = shape_of(shapes, "stages.0.blocks.0.attn.moveq.bias", 4)[2]
    window = square(places, "A window")
    return {
        **sizes,
        "image_size": square(tokens, "The first stage") * patch,
        "patch_size": patch,
        "window": (window, window),
        "merge": merge_of(shapes, "stages.1.merge.reduction.move.bias"),
    }


def _layers(config: SwinConfig) -> Iterator[LayerAccount]:
    patch = 3 * config.patch_size**2
    for index, stage in enumerate(config.stages):
        C, N = stage.width, stage.tokens
        if index == 0:
            yield in_fp32(
                "embedding",
                "embedding",
                parameters=C * patch + C + 2 * C,
                fp_macs=N * C * patch,
                why=PIXELS,
            )
        else:
            inputs = 4 * config.widths[index - 1]
            name = f"stages.{index}.merge"
            if config.merge == "binary":
                yield in_fp32(f"{name}.norm", f"{name}.norm", parameters=2 * inputs, why=BETWEEN)
                yield from merged(config, name, rows=N, inputs=inputs, outputs=C, moves=inputs)
            else:
                yield in_fp32(
                    name,
                    f"{name}.norm",
                    name,
                    parameters=2 * inputs + inputs * C,
                    fp_macs=N * inputs * C,
                    why=BETWEEN,
                )
        yield from block_layers(config, index)
    last = config.stages[-1]
    yield from classifier(
        rows=last.tokens, width=last.width, classes=config.classes, norm=config.norm
    )


def _twin(config: SwinConfig) -> SwinTwinConfig:
    return SwinTwinConfig(**config.twin_sizes(), window=config.window)


SWIN: Final = Architecture(
    name="swin",
    config=SwinConfig,
    presets=(
        Preset(
            "swin-tiny",
            SwinConfig(
                image_size=224,
                patch_size=4,
                widths=(96, 192, 384, 768),
                depths=(2, 2, 6, 2),
                heads=(3, 6, 12, 24),
                hidden=(384, 768, 1536, 3072),
                window=(7, 7),
                classes=1000,
                si=True,
            ),
            Preprocessing(),
            "Swin width 96/192/384/768, 2/2/6/2 blocks, 224 px, SI",
        ),
        Preset(
            "micro-swin",
            SwinConfig(
                image_size=32,
                patch_size=4,
                widths=(64, 128),
                depths=(2, 2),
                heads=(2, 4),
                hidden=(128, 256),
                window=(4, 4),
                classes=10,
                si=True,
            ),
            SMALL_PICTURES,
            "Swin width 64/128, 32 px, 64/16 tokens, SI: trains on digits in minutes",
        ),
    ),
    tensors=(
        "head.weight",
        "patch_embed.proj.weight",
        "stages.0.blocks.0.attn.relative_position_bias_table",
        "stages.0.blocks.0.attn.moveq.bias",
    ),
    sizes=_sizes,
    layers=_layers,
    twin=_twin,
)
