"""Backbones of several stages: what their configurations, shapes and costs have in common."""

from __future__ import annotations

import dataclasses
import math
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Self

from vitc.errors import VitcError
from vitc.models.account import Binary, LayerAccount, attention, moved_linear, spatial, two_layer
from vitc.models.architectures.entry import Shapes, norm_of
from vitc.models.config import NetworkConfig
from vitc.models.described import LARGEST, Sides, check_multiple, numbered, shown

__all__ = [
    "BETWEEN",
    "MERGES",
    "TWIN_RATIO",
    "Stage",
    "StagedConfig",
    "block_layers",
    "merge_of",
    "merged",
    "shape_of",
    "square",
    "staged_sizes",
]

MERGES: Final = ("float", "binary")
"""How the linears and convolutions between stages are computed."""

TWIN_RATIO: Final = 4
"""Hidden channels over channels of a full-precision twin's MLP."""

BETWEEN: Final = "between stages things are real numbers, as the papers keep them"

_MOST_VALUES: Final = 1 << 28
"""Tokens times width."""

_MOST_STAGES: Final = 16


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stage as its blocks see it.

    Attributes:
        map: Rows and columns of its tokens.
        width: C.
        heads: h.
        depth: Number of blocks.
        hidden: Hidden channels of the MLP.
        window: Rows and columns of the tokens that attend each other; the map for all.
        shift: By how much every second block shifts its windows.
        relative: Whether scores have a bias of relative positions.
        reduction: R: keys are R x R tokens together, and have a linear of their own; None where
            queries, keys and values are of one linear.
        class_token: Whether a class token stands before the map.
        mixed: Rows and columns of the tokens that the spatial branch mixes; the map for all.
    """

    map: tuple[int, int]
    width: int
    heads: int
    depth: int
    hidden: int
    window: tuple[int, int]
    mixed: tuple[int, int]
    shift: tuple[int, int] = (0, 0)
    relative: bool = False
    reduction: int | None = None
    class_token: bool = False

    @property
    def tokens(self) -> int:
        """N."""
        return math.prod(self.map) + self.class_token

    @property
    def group(self) -> int:
        """Tokens that attend each other: n."""
        return self.tokens if self.window == self.map else math.prod(self.window)

    @property
    def keys(self) -> int:
        """Keys of a group: m."""
        return self.group if self.reduction in (None, 1) else self.group // self.reduction**2

    @property
    def si_tokens(self) -> int:
        """Tokens that the spatial branch mixes: g."""
        return self.tokens if self.mixed == self.map else math.prod(self.mixed)


@dataclass(frozen=True, kw_only=True)
class StagedConfig(NetworkConfig):
    """Sizes of a binarized backbone of several stages; each tuple has one number a stage.

    Attributes:
        patch_size: Side of a patch of the image in pixels.
        widths: C, channels of a token.
        depths: Number of blocks.
        heads: h, attention heads.
        hidden: Hidden channels of the MLP.
        merge: ``float`` or ``binary``: what is computed between stages.

    Raises:
        VitcError: If the sizes contradict each other.
    """

    patch_size: int
    widths: tuple[int, ...]
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    hidden: tuple[int, ...]
    merge: str = "float"

    per_stage: ClassVar[tuple[str, ...]] = ("widths", "depths", "heads", "hidden")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_sizes("patch_size")
        for name in self.per_stage:
            sizes = getattr(self, name)
            if (
                not isinstance(sizes, tuple)
                or not 1 <= len(sizes) <= _MOST_STAGES
                or not all(type(size) is int and 1 <= size <= LARGEST for size in sizes)
            ):
                raise VitcError(
                    f"{name} must be positive integers of at most {LARGEST}, one a stage, found "
                    f"{shown(sizes)}."
                )
            if len(sizes) != len(self.widths):
                raise VitcError(
                    f"{name} speaks of {len(sizes)} stages, widths of {len(self.widths)}."
                )
        for width, heads in zip(self.widths, self.heads, strict=True):
            if width % heads:
                raise VitcError(f"The width {width} is not a multiple of {heads} heads.")
        if self.merge not in MERGES:
            raise VitcError(f"merge must be {' or '.join(MERGES)}, found {shown(self.merge)}.")
        self._check_map()
        for stage in self.stages:
            if stage.tokens * stage.width > _MOST_VALUES:
                raise VitcError(
                    f"{stage.tokens} tokens of width {stage.width} are more than vitc takes."
                )

    @abstractmethod
    def _check_map(self) -> None:
        """Raise a `VitcError` if the image cannot be cut as the stages want."""

    @property
    @abstractmethod
    def stages(self) -> tuple[Stage, ...]:
        """What each stage is."""

    def _check_halved(self) -> None:
        """Raise a `VitcError` if the map of patches is not halved as often as there are stages."""
        halvings = len(self.widths) - 1
        check_multiple(
            self.sides,
            self.patch_size << halvings,
            f"{self.patch_size << halvings}, a patch of {self.patch_size} pixels doubled "
            f"{halvings} times",
        )

    def twin_sizes(self) -> dict[str, Any]:
        """What the configuration of its full-precision twin has too."""
        return {
            "image_size": self.image_size,
            "patch_size": self.patch_size,
            "widths": self.widths,
            "depths": self.depths,
            "heads": self.heads,
            "hidden": tuple(TWIN_RATIO * width for width in self.widths),
            "classes": self.classes,
        }

    @property
    def blocks(self) -> int:
        """Blocks of all stages."""
        return sum(self.depths)

    @property
    def widest(self) -> int:
        """Channels of a token of the last stage."""
        return max(self.widths)

    def shape(self) -> str:
        """The sizes of its blocks in a few words."""

        def each(sizes: tuple[int, ...]) -> str:
            return "/".join(map(str, sizes))

        tokens = each(tuple(stage.tokens for stage in self.stages))
        return (
            f"{each(self.depths)} blocks, width {each(self.widths)}, {each(self.heads)} heads, "
            f"hidden {each(self.hidden)}, {tokens} tokens"
        )

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
    ) -> Self:
        """This configuration with some sizes changed; `depth` is that of every stage."""
        changes: dict[str, Any] = {
            "image_size": image_size,
            "classes": classes,
            "depths": None if depth is None else (depth,) * len(self.depths),
            "hidden": None if mlp_ratio is None else tuple(mlp_ratio * C for C in self.widths),
            "si": si,
            "weight_bits": weight_bits,
            "norm": norm,
            "merge": merge,
        }
        return dataclasses.replace(self, **{k: v for k, v in changes.items() if v is not None})


def shape_of(shapes: Shapes, name: str, rank: int) -> tuple[int, ...]:
    """The shape of a tensor.

    Raises:
        VitcError: If it is not there, or has another rank.
    """
    shape = shapes.get(name)
    if shape is None or len(shape) != rank:
        found = "is missing" if shape is None else f"has shape {shape}"
        raise VitcError(
            f"This is not the state dict of an SI-BiViT network: {name} {found}.",
            "vitc reads its own .safetensors and official SI-BiViT checkpoints.",
        )
    return shape


def square(tokens: int, what: str) -> int:
    """The side of a square of tokens.

    Raises:
        VitcError: If they are none; a state dict does not tell the sides of a rectangle.
    """
    side = math.isqrt(max(tokens, 0))
    if side < 1 or side * side != tokens:
        raise VitcError(
            f"{what} has {tokens} tokens, which is no square.",
            "A rectangle is told by the configuration in a file that vitc has written.",
        )
    return side


def staged_sizes(shapes: Shapes) -> dict[str, Any]:
    """The fields of a configuration that the shapes of all such backbones tell in the same way.

    Raises:
        VitcError: If a tensor is missing or has another rank.
    """
    count = numbered(shapes, "stages")
    first = [f"stages.{index}.blocks.0" for index in range(count)]
    linears = [shape_of(shapes, f"{name}.mlp.fc1.weight", 2) for name in first]
    return {
        "widths": tuple(inputs for _, inputs in linears),
        "hidden": tuple(outputs for outputs, _ in linears),
        "depths": tuple(numbered(shapes, f"stages.{index}.blocks") for index in range(count)),
        "heads": tuple(shape_of(shapes, f"{name}.attn.moveq.bias", 4)[1] for name in first),
        "classes": shape_of(shapes, "head.weight", 2)[0],
        "si": "stages.0.blocks.0.mlp2.fc1.weight" in shapes,
        "norm": norm_of(shapes),
    }


def merge_of(shapes: Shapes, moved: str) -> str:
    """What is computed between stages: only signs have a move, which `moved` is the name of."""
    return "binary" if moved in shapes else "float"


def merged(
    config: StagedConfig, name: str, *, rows: int, inputs: int, outputs: int, moves: int
) -> Iterator[LayerAccount]:
    """A binary linear between stages, and what moves its inputs."""
    yield from moved_linear(
        name,
        rows=rows,
        inputs=inputs,
        outputs=outputs,
        moves=moves,
        binary=Binary(config.weight_bits, config.scheme),
    )


def block_layers(config: StagedConfig, index: int) -> Iterator[LayerAccount]:
    """What the blocks of a stage cost."""
    stage, binary = config.stages[index], Binary(config.weight_bits, config.scheme)
    for block in range(stage.depth):
        name = f"stages.{index}.blocks.{block}"
        yield from attention(
            f"{name}.attn",
            tokens=stage.tokens,
            group=stage.group,
            width=stage.width,
            heads=stage.heads,
            binary=binary,
            norm=config.norm,
            window=stage.window if stage.relative else None,
            reduction=stage.reduction,
            merge=config.merge,
        )
        yield from two_layer(
            f"{name}.mlp",
            rows=stage.tokens,
            inputs=stage.width,
            hidden=stage.hidden,
            binary=binary,
            norm=config.norm,
        )
        if config.si:
            yield from spatial(
                f"{name}.si",
                width=stage.width,
                group=stage.si_tokens,
                hidden=stage.si_tokens,
                binary=binary,
                groups=stage.tokens // stage.si_tokens,
            )
