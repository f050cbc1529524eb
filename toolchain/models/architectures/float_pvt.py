"""The full-precision twin of PVT (v1): all queries attend keys of a map reduced in each stage."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from vitc.errors import VitcError
from vitc.models.account import LayerAccount
from vitc.models.architectures.entry import Architecture, Shapes
from vitc.models.architectures.twin import (
    StagedTwinConfig,
    attention,
    classifier,
    itself,
    mlp,
    norm,
    projection,
    values,
)
from vitc.models.described import numbered

__all__ = ["FLOAT_PVT", "PVTTwinConfig"]


@dataclass(frozen=True, kw_only=True)
class PVTTwinConfig(StagedTwinConfig):
    """Sizes of a full-precision PVT.

    Attributes:
        patch_sizes: Side of a stage's patches, in pixels or in places of the map before.
        reductions: R; keys and values are those of R x R places together.

    Raises:
        VitcError: If the sizes contradict each other.
    """

    arch: str = "float-pvt"
    patch_sizes: tuple[int, ...]
    reductions: tuple[int, ...]

    per_stage: ClassVar[tuple[str, ...]] = (
        *StagedTwinConfig.per_stage,
        "patch_sizes",
        "reductions",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.reductions[-1] != 1:
            raise VitcError(
                f"The last stage has a class token, so its R is 1, found {self.reductions[-1]}."
            )
        for size, reduction in zip(self.maps, self.reductions, strict=True):
            if any(side % reduction for side in size):
                raise VitcError(
                    f"A map of {size[0]} x {size[1]} tokens is not reduced by {reduction}."
                )

    @property
    def maps(self) -> list[tuple[int, int]]:
        """Height and width of each stage's map in tokens, without the class token.

        Raises:
            VitcError: If a side is no multiple of a patch.
        """
        _, height, width = self.input_shape
        found = []
        for patch in self.patch_sizes:
            if height % patch or width % patch:
                raise VitcError(
                    f"A map of {height} x {width} is not cut into patches of side {patch}.",
                    "Choose an image size that is a multiple of all patches together.",
                )
            height, width = height // patch, width // patch
            found.append((height, width))
        return found


def _sizes(shapes: Shapes) -> dict[str, Any]:
    stages = range(numbered(shapes, "stages"))
    first = [f"stages.{s}.blocks.0" for s in stages]
    patches = tuple(shapes[f"stages.{s}.patch_embed.proj.weight"][2] for s in stages)
    tokens = shapes["stages.0.pos_embed"][1]
    side = math.isqrt(tokens)
    if side * side != tokens:
        raise VitcError(f"stages.0.pos_embed has {tokens} tokens, which is no square.")
    reduced = [shapes.get(f"{block}.attn.sr.weight") for block in first]
    return {
        "image_size": side * patches[0],
        "patch_sizes": patches,
        "reductions": tuple(1 if shape is None else shape[2] for shape in reduced),
        "widths": tuple(shapes[f"{block}.norm1.weight"][0] for block in first),
        "depths": tuple(numbered(shapes, f"stages.{s}.blocks") for s in stages),
        "hidden": tuple(shapes[f"{block}.mlp.fc1.weight"][0] for block in first),
        "classes": shapes["head.weight"][0],
    }


def _layers(config: PVTTwinConfig) -> Iterator[LayerAccount]:
    before = 3
    last = len(config.widths) - 1
    for s, (size, C, R) in enumerate(
        zip(config.maps, config.widths, config.reductions, strict=True)
    ):
        N = size[0] * size[1]
        tap = f"stages.{s}.embedding"
        patch = before * config.patch_sizes[s] ** 2
        yield projection(f"stages.{s}.patch_embed.proj", tap, rows=N, inputs=patch, outputs=C)
        yield norm(f"stages.{s}.patch_embed.norm", tap, width=C)
        tokens = N + (s == last)
        yield values(f"stages.{s}.embedding", tap, count=C * (tokens + (s == last)))
        keys = N // R**2 + (s == last)
        for i in range(config.depths[s]):
            block = f"stages.{s}.blocks.{i}"
            yield from _attention(f"{block}.attn", tokens=tokens, width=C, keys=keys, reduction=R)
            yield from mlp(f"{block}.mlp", tokens=tokens, width=C, hidden=config.hidden[s])
        before = C
    yield from classifier(width=before, classes=config.classes)


def _attention(
    name: str, *, tokens: int, width: int, keys: int, reduction: int
) -> Iterator[LayerAccount]:
    normal, _, context, proj = attention(name, tokens=tokens, width=width, keys=keys)
    tap = f"{name}.output"
    yield normal
    yield projection(f"{name}.q", tap, rows=tokens, inputs=width, outputs=width)
    if reduction > 1:
        places = reduction**2 * width
        yield projection(f"{name}.sr", tap, rows=keys, inputs=places, outputs=width)
        yield norm(f"{name}.norm", tap, width=width)
    yield projection(f"{name}.kv", tap, rows=keys, inputs=width, outputs=2 * width)
    yield context
    yield proj


FLOAT_PVT: Final = Architecture(
    name="float-pvt",
    config=PVTTwinConfig,
    presets=(),
    tensors=("stages.0.patch_embed.proj.weight", "stages.0.blocks.0.norm1.weight"),
    sizes=_sizes,
    layers=_layers,
    twin=itself,
)
