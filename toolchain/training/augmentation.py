"""Light augmentation of batches: small shifts, and mirror images where a class survives them."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["mirror", "shift"]


def shift(images: Tensor, reach: int, generator: torch.Generator) -> Tensor:
    """Move each image by up to `reach` pixels in each direction; borders repeat.

    Args:
        images: [B, 3, H, W].
        reach: Largest shift in pixels.
        generator: Source of the shifts.
    """
    count, _, height, width = images.shape
    offsets = torch.randint(-reach, reach + 1, (2, count, 1), generator=generator)
    rows = (torch.arange(height) + offsets[0]).clamp(0, height - 1)
    columns = (torch.arange(width) + offsets[1]).clamp(0, width - 1)
    each = torch.arange(count)[:, None, None]
    moved = images.permute(0, 2, 3, 1)[each, rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2).contiguous()


def mirror(images: Tensor, generator: torch.Generator) -> Tensor:
    """Flip each image left to right with probability 1/2; images are [B, 3, H, W]."""
    flipped = torch.rand(images.shape[0], generator=generator) < 0.5
    return torch.where(flipped[:, None, None, None], images.flip(-1), images)
