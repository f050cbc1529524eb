"""The full-precision twin of Swin: attention inside windows that shift from block to block."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from vitc.errors import VitcError
from vitc.models.account import LayerAccount
from vitc.models.architectures.entry import Architecture, Shapes
from vitc.models.architectures.twin import (
    StagedTwinConfig,
    attention,
    classifier,
    halvings,
    itself,
    mlp,
    norm,
    projection,
)
from vitc.models.described import numbered

__all__ = ["FLOAT_SWIN", "SwinTwinConfig"]


@dataclass(frozen=True, kw_only=True)
class SwinTwinConfig(StagedTwinConfig):
    """Sizes of a full-precision Swin.

    Attributes:
        patch_size: Side of a patch in pixels.
        window: Height and width of a window in tokens; a smaller map is one window.

    Raises:
        VitcError: If the sizes contradict each other.
    """

    arch: str = "float-swin"
    patch_size: int
    window: tuple[int, int]
    bn_eps: float = 1e-5
    side_eps: float = 1e-5

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_sizes("patch_size")
        self._check_several("window")
        if len(self.window) != 2:
            raise VitcError(f"A window has two sides, found {len(self.window)}.")
        if any(side % self.patch_size for side in self.input_shape[1:]):
            raise VitcError(
                f"The image size {self.image_size} is not a multiple of the patch size "
                f"{self.patch_size}."
            )
        for size in self.maps:
            high, wide = self.windowed(size)
            self._check_memory(size[0] * size[1], high * wide)
            if any(side % part for side, part in zip(size, self.windowed(size), strict=True)):
                raise VitcError(
                    f"A map of {size[0]} x {size[1]} tokens has no whole windows of "
                    f"{self.window[0]} x {self.window[1]}.",
                    "Choose an image size whose maps are multiples of the window.",
                )

    @property
    def maps(self) -> list[tuple[int, int]]:
        """Height and width of each stage's map in tokens."""
        _, height, width = self.input_shape
        return halvings(self, (height // self.patch_size, width // self.patch_size))

    def windowed(self, size: tuple[int, int]) -> tuple[int, int]:
        """The window on a map."""
        return min(self.window[0], size[0]), min(self.window[1], size[1])


def _sizes(shapes: Shapes) -> dict[str, Any]:
    stages = range(numbered(shapes, "stages"))
    first = [f"stages.{s}.blocks.0" for s in stages]
    table = shapes[f"{first[0]}.attn.relative_position_bias_table"][0]
    window = (math.isqrt(table) + 1) // 2
    if (2 * window - 1) ** 2 != table:
        raise VitcError(f"A table of {table} relative positions is that of no square window.")
    return {
        "patch_size": shapes["patch_embed.proj.weight"][2],
        "widths": tuple(shapes[f"{block}.norm1.weight"][0] for block in first),
        "depths": tuple(numbered(shapes, f"stages.{s}.blocks") for s in stages),
        "heads": tuple(shapes[f"{block}.attn.relative_position_bias_table"][1] for block in first),
        "hidden": tuple(shapes[f"{block}.mlp.fc1.weight"][0] for block in first),
        "window": (window, window),
        "classes": shapes["head.weight"][0],
    }


def _layers(config: SwinTwinConfig) -> Iterator[LayerAccount]:
    patch = 3 * config.patch_size**2
    for s, (size, C, h) in enumerate(zip(config.maps, config.widths, config.heads, strict=True)):
        N = size[0] * size[1]
        if s == 0:
            yield projection("patch_embed.proj", "embedding", rows=N, inputs=patch, outputs=C)
            yield norm("patch_embed.norm", "embedding", width=C)
        else:
            before = 4 * config.widths[s - 1]
            name = f"stages.{s}.merge"
            yield norm(f"{name}.norm", name, width=before)
            yield projection(
                f"{name}.reduction", name, rows=N, inputs=before, outputs=C, bias=False
            )
        high, wide = config.windowed(size)
        biases = (2 * high - 1) * (2 * wide - 1) * h
        for i in range(config.depths[s]):
            block = f"stages.{s}.blocks.{i}"
            yield from attention(
                f"{block}.attn", tokens=N, width=C, keys=high * wide, biases=biases
            )
            yield from mlp(f"{block}.mlp", tokens=N, width=C, hidden=config.hidden[s])
    yield from classifier(width=config.widths[-1], classes=config.classes)


FLOAT_SWIN: Final = Architecture(
    name="float-swin",
    config=SwinTwinConfig,
    presets=(),
    tensors=("patch_embed.proj.weight", "stages.0.blocks.0.attn.relative_position_bias_table"),
    sizes=_sizes,
    layers=_layers,
    twin=itself,
)
