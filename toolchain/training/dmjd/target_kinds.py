"""What is predicted of tokens, by its name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitc.errors import VitcError
from vitc.models.described import both
from vitc.models.preprocessing import Preprocessing
from vitc.models.twins.twin import Twin
from vitc.training.dmjd.targets import hog_targets, pixel_targets

__all__ = ["TARGETS", "Features", "Target", "target_of"]

Target: TypeAlias = Callable[[Tensor], Tensor]
"""Crops in values 0..255, fp32 [B, 3, H, W], to what is predicted of each token [B, tokens, C]."""

TARGETS: Final = ("hog", "pixels", "teacher")


def target_of(kind: str, patch: int) -> Target:
    """A target that needs no network.

    Args:
        kind: ``hog`` or ``pixels``.
        patch: Side of a patch in pixels.

    Raises:
        VitcError: If there is none of that name.
    """
    known = {"hog": hog_targets, "pixels": pixel_targets}
    if kind not in known:
        raise VitcError(f"There is no target {kind!r}.", f"Known: {', '.join(TARGETS)}.")
    return lambda images: known[kind](images, patch)


class Features(nn.Module):
    """Features of a frozen network, normalised over channels; a target.

    Args:
        teacher: The network; its last map has the places of the tokens.
        grid: Rows and columns of the tokens.

    Raises:
        VitcError: If its map is another one.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, teacher: Twin, grid: tuple[int, int]) -> None:
        super().__init__()
        self.teacher = teacher.requires_grad_(False).eval()
        own: Preprocessing = teacher.preprocessing
        self.size = both(own.crop)
        self.register_buffer("mean", 255 * torch.tensor(own.mean)[:, None, None])
        self.register_buffer("std", 255 * torch.tensor(own.std)[:, None, None])
        with torch.no_grad():
            rows, columns = teacher.on_map(teacher.trunk(torch.zeros(1, 3, *self.size))).shape[1:3]
        if (rows, columns) != grid:
            raise VitcError(
                f"The last map of {teacher.source_path} has {rows} x {columns} places, the network "
                f"to train {grid[0]} x {grid[1]} tokens.",
                "Choose a teacher whose last map has as many.",
            )

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """See `Target`."""
        if images.shape[-2:] != self.size:
            images = F.interpolate(images, size=self.size, mode="bilinear", antialias=True)
        tokens = self.teacher.on_map(self.teacher.trunk((images - self.mean) / self.std))
        return F.layer_norm(tokens.flatten(1, 2), tokens.shape[-1:])
