"""The full-precision twin of DeiT: a vision transformer with a class token, or two."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from vitc.errors import VitcError
from vitc.models.account import LayerAccount
from vitc.models.architectures.entry import Architecture, Shapes
from vitc.models.architectures.twin import (
    TwinConfig,
    attention,
    classifier,
    itself,
    mlp,
    projection,
    values,
)
from vitc.models.described import block_sizes, numbered

__all__ = ["FLOAT_DEIT", "DeiTTwinConfig", "float_deit_layers"]


@dataclass(frozen=True, kw_only=True)
class DeiTTwinConfig(TwinConfig):
    """Sizes of a full-precision DeiT or ViT.

    Attributes:
        patch_size: Side of a patch in pixels.
        width: C, channels of a token.
        depth: Number of blocks.
        heads: h, attention heads; the head width is C / h.
        hidden: Hidden channels of the MLP.
        distilled: Whether there is a distillation token behind the class token.
        distilled_head: Whether it has a head of its own; the logits are the mean of the two.

    Raises:
        VitcError: If the sizes contradict each other.
    """

    arch: str = "float-deit"
    patch_size: int
    width: int
    depth: int
    heads: int
    hidden: int
    distilled: bool = False
    distilled_head: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_sizes("patch_size", "width", "depth", "heads", "hidden")
        if any(side % self.patch_size for side in self.input_shape[1:]):
            raise VitcError(
                f"The image size {self.image_size} is not a multiple of the patch size "
                f"{self.patch_size}.",
                f"Choose a multiple of {self.patch_size}.",
            )
        if self.width % self.heads:
            raise VitcError(f"The width {self.width} is not a multiple of {self.heads} heads.")
        self._check_memory(self.tokens, self.width)
        if self.distilled_head and not self.distilled:
            raise VitcError("A head for the distillation token needs that token.")

    @property
    def map(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        _, height, width = self.input_shape
        return height // self.patch_size, width // self.patch_size

    @property
    def patches(self) -> int:
        """Tokens that are patches of the image."""
        return math.prod(self.map)

    @property
    def tokens(self) -> int:
        """N, patches, class token and distillation token."""
        return self.patches + (2 if self.distilled else 1)

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
        image_size: Any = None,
        classes: int | None = None,
        depth: int | None = None,
        mlp_ratio: int | None = None,
        **others: Any,
    ) -> DeiTTwinConfig:
        """This configuration with some sizes changed.

        Raises:
            VitcError: If sizes contradict each other, or speak of bits.
        """
        self._fixed(**others)
        return dataclasses.replace(
            self,
            image_size=self.image_size if image_size is None else image_size,
            classes=self.classes if classes is None else classes,
            depth=self.depth if depth is None else depth,
            hidden=self.hidden if mlp_ratio is None else mlp_ratio * self.width,
        )


def _sizes(shapes: Shapes) -> dict[str, Any]:
    width, _, patch, _ = shapes["patch_embed.proj.weight"]
    distilled = "dist_token" in shapes
    patches = shapes["pos_embed"][1] - (2 if distilled else 1)
    side = math.isqrt(max(patches, 0))
    if side < 1 or side * side != patches:
        raise VitcError(f"pos_embed has {patches} patches, which is no square.")
    return {
        "image_size": side * patch,
        "patch_size": patch,
        "width": width,
        "depth": numbered(shapes, "blocks"),
        "hidden": shapes["blocks.0.mlp.fc1.weight"][0],
        "classes": shapes["head.weight"][0],
        "distilled": distilled,
        "distilled_head": "head_dist.weight" in shapes,
    }


def float_deit_layers(config: DeiTTwinConfig, codes: int = 0) -> Iterator[LayerAccount]:
    """Its layers, with rows behind the tokens."""
    C, N, patch = config.width, config.tokens, 3 * config.patch_size**2
    yield projection("patch_embed", "embedding", rows=config.patches, inputs=patch, outputs=C)
    added = C * (N + N - config.patches)
    yield values("embedding", "embedding", count=added)
    for i in range(config.depth):
        yield from attention(f"blocks.{i}.attn", tokens=N + codes, width=C, keys=N + codes)
        yield from mlp(f"blocks.{i}.mlp", tokens=N + codes, width=C, hidden=config.hidden)
    yield from classifier(width=C, classes=config.classes, heads=1 + config.distilled_head)


FLOAT_DEIT: Final = Architecture(
    name="float-deit",
    config=DeiTTwinConfig,
    presets=(),
    tensors=("patch_embed.proj.weight", "pos_embed", "blocks.0.norm1.weight"),
    sizes=_sizes,
    layers=float_deit_layers,
    twin=itself,
)
