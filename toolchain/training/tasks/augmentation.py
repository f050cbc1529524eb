"""Mirror images and crops of pictures with their boxes and masks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

from vitc.training.epoch_order import Share

__all__ = ["Batch", "cropped", "mirrored"]

_LEAST: Final = 0.6
"""Share of either side that a crop has at least."""

_SEEN: Final = 0.25
"""Share of a box's area that has to be in the crop."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Pictures with boxes, or with masks.

    Attributes:
        images: [B, 3, H, W].
        boxes: [B, n, 4], x0, y0, x1, y1 in pixels.
        classes: int64 [B, n], -1 for no box.
        masks: int64 [B, H, W], -1 for void; None of pictures with boxes only.
    """

    images: Tensor
    boxes: Tensor
    classes: Tensor
    masks: Tensor | None = None


def mirrored(batch: Batch, draws: torch.Generator, share: Share) -> Batch:
    """Half of the pictures left to right."""
    device = batch.images.device
    flip = (torch.rand(share.total, generator=draws) < 0.5)[share.rows].to(device)
    width = batch.images.shape[-1]
    x0, y0, x1, y1 = batch.boxes.unbind(-1)
    other = torch.stack([width - x1, y0, width - x0, y1], dim=-1)
    each = flip[:, None, None]
    masks = batch.masks
    return Batch(
        torch.where(each[..., None], batch.images.flip(-1), batch.images),
        torch.where(each & (batch.classes >= 0)[..., None], other, batch.boxes),
        batch.classes,
        None if masks is None else torch.where(each, masks.flip(-1), masks),
    )


def cropped(batch: Batch, draws: torch.Generator, share: Share) -> Batch:
    """A part of each picture, enlarged to its size.

    A box is cut where the part ends, and left out if less than a quarter of it is seen.
    """
    device = batch.images.device
    height, width = batch.images.shape[-2:]
    drawn = torch.rand(share.total, 3, generator=draws)[share.rows].to(device)
    scale = _LEAST + (1 - _LEAST) * drawn[:, :1]
    free = 1 - scale
    corner = free * drawn[:, 1:]  # x, y, as shares of the sides
    # Of affine_grid: the part's middle and half side, with sides from -1 to 1.
    theta = torch.zeros(len(drawn), 2, 3, device=device)
    theta[:, 0, 0] = theta[:, 1, 1] = scale[:, 0]
    theta[:, :, 2] = 2 * corner + scale - 1
    grid = F.affine_grid(theta, list(batch.images.shape), align_corners=False)
    images = F.grid_sample(batch.images, grid, padding_mode="border", align_corners=False)
    sides = torch.tensor([width, height], device=device, dtype=torch.float32)
    pixels = (corner * sides).repeat(1, 2)[:, None]
    moved = (batch.boxes - pixels) / scale[:, None]
    limits = sides.repeat(2)
    cut = torch.minimum(moved.clamp(min=0), limits)
    share_seen = _area(cut) / _area(moved).clamp(min=1e-6)
    seen = (batch.classes >= 0) & (share_seen >= _SEEN)
    masks = batch.masks
    if masks is not None:
        shown = F.grid_sample(
            masks[:, None].float() + 1, grid, "nearest", "border", align_corners=False
        )
        masks = shown[:, 0].round().long() - 1
    return Batch(
        images,
        torch.where(seen[..., None], cut, torch.zeros_like(cut)),
        torch.where(seen, batch.classes, -1),
        masks,
    )


def _area(boxes: Tensor) -> Tensor:
    sides = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0)
    return sides[..., 0] * sides[..., 1]
