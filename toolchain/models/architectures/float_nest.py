"""The full-precision twin of NesT: attention inside blocks, four of which become one a level."""

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
    values,
)
from vitc.models.described import numbered, shown

__all__ = ["FLOAT_NEST", "POOLINGS", "NesTTwinConfig"]

POOLINGS: Final = ("same", "")
"""Padding of the max pool between levels, in timm's words: below and right, or on every side."""


@dataclass(frozen=True, kw_only=True)
class NesTTwinConfig(StagedTwinConfig):
    """Sizes of a full-precision NesT.

    Attributes:
        patch_size: Side of a patch in pixels.
        pad_type: Of the max pool between levels, one of `POOLINGS`; shapes do not tell it.

    Raises:
        VitcError: If the sizes contradict each other.
    """

    arch: str = "float-nest"
    patch_size: int
    pad_type: str = "same"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_sizes("patch_size")
        if self.pad_type not in POOLINGS:
            raise VitcError(
                f"pad_type is {shown(self.pad_type)}; vitc knows "
                f"{' and '.join(map(repr, POOLINGS))}."
            )
        if any(side % self.patch_size for side in self.input_shape[1:]):
            raise VitcError(
                f"The image size {self.image_size} is not a multiple of the patch size "
                f"{self.patch_size}."
            )
        _ = self.maps

    @property
    def maps(self) -> list[tuple[int, int]]:
        """Height and width of each level's map in tokens."""
        _, height, width = self.input_shape
        return halvings(self, (height // self.patch_size, width // self.patch_size))

    @property
    def block(self) -> tuple[int, int]:
        """Height and width of a block of tokens in every level: the last level's map."""
        return self.maps[-1]


def _sizes(shapes: Shapes) -> dict[str, Any]:
    stages = range(numbered(shapes, "stages"))
    first = [f"stages.{s}.blocks.0" for s in stages]
    patch = shapes["patch_embed.proj.weight"][2]
    _, groups, places, _ = shapes["stages.0.pos_embed"]
    side = math.isqrt(groups * places)
    if side * side != groups * places:
        raise VitcError(f"stages.0.pos_embed has {groups * places} tokens, which is no square.")
    return {
        "image_size": side * patch,
        "patch_size": patch,
        "widths": tuple(shapes[f"{block}.norm1.weight"][0] for block in first),
        "depths": tuple(numbered(shapes, f"stages.{s}.blocks") for s in stages),
        "hidden": tuple(shapes[f"{block}.mlp.fc1.weight"][0] for block in first),
        "classes": shapes["head.weight"][0],
    }


def _layers(config: NesTTwinConfig) -> Iterator[LayerAccount]:
    patch = 3 * config.patch_size**2
    places = config.block[0] * config.block[1]
    for s, (size, C) in enumerate(zip(config.maps, config.widths, strict=True)):
        N = size[0] * size[1]
        tap = f"stages.{s}.embedding"
        if s == 0:
            yield projection("patch_embed.proj", tap, rows=N, inputs=patch, outputs=C)
        else:
            before = config.widths[s - 1]
            name = f"stages.{s}.pool"
            yield projection(f"{name}.conv", name, rows=4 * N, inputs=9 * before, outputs=C)
            yield norm(f"{name}.norm", name, width=C)
        yield values(f"stages.{s}.pos_embed", tap, count=N * C)
        for i in range(config.depths[s]):
            block = f"stages.{s}.blocks.{i}"
            yield from attention(f"{block}.attn", tokens=N, width=C, keys=places)
            yield from mlp(f"{block}.mlp", tokens=N, width=C, hidden=config.hidden[s])
    yield from classifier(width=config.widths[-1], classes=config.classes)


FLOAT_NEST: Final = Architecture(
    name="float-nest",
    config=NesTTwinConfig,
    presets=(),
    tensors=("patch_embed.proj.weight", "stages.0.pos_embed", "stages.0.blocks.0.norm1.weight"),
    sizes=_sizes,
    layers=_layers,
    twin=itself,
)
