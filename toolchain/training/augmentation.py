"""Augmentation of batches: shifts, mirror images, crops and erased rectangles.

What is random is drawn on the processor, for all examples of a step's batch; a process applies its
share of it where its images are.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

from vitc.training.epoch_order import Share

__all__ = ["erase", "mirror", "resized_crop", "shift"]

_TRIES: Final = 10
_CROP_RATIO: Final = (3 / 4, 4 / 3)
_ERASED_SHARE: Final = (0.02, 1 / 3)
_ERASED_RATIO: Final = (0.3, 1 / 0.3)


def shift(
    images: Tensor, reach: int, generator: torch.Generator, share: Share | None = None
) -> Tensor:
    """Move each image by up to `reach` pixels in each direction; borders repeat.

    Args:
        images: [B, 3, H, W].
        reach: Largest shift in pixels.
        generator: Source of the shifts.
        share: Which images of a batch these are; all by default.
    """
    count, _, height, width = images.shape
    share = share or Share.whole(count)
    offsets = torch.randint(-reach, reach + 1, (2, share.total, 1), generator=generator)
    own = offsets[:, share.rows].to(images.device)
    rows = (torch.arange(height, device=images.device) + own[0]).clamp(0, height - 1)
    columns = (torch.arange(width, device=images.device) + own[1]).clamp(0, width - 1)
    each = torch.arange(count, device=images.device)[:, None, None]
    moved = images.permute(0, 2, 3, 1)[each, rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2).contiguous()


def mirror(
    images: Tensor,
    generator: torch.Generator,
    share: Share | None = None,
    probability: float = 0.5,
) -> Tensor:
    """Flip each image [B, 3, H, W] left to right with a probability; arguments as of `shift`."""
    share = share or Share.whole(len(images))
    flipped = (torch.rand(share.total, generator=generator) < probability)[share.rows]
    return torch.where(flipped.to(images.device)[:, None, None, None], images.flip(-1), images)


def resized_crop(
    images: Tensor,
    scale: tuple[float, float],
    generator: torch.Generator,
    share: Share | None = None,
    mode: str = "bilinear",
) -> Tensor:
    """Replace each image by a random rectangle of it, enlarged (Inception's; torchvision, timm).

    Ratios of width to height are between 3/4 and 4/3, uniform in their logarithm. Of ten rectangles
    the first that fits is taken; where none does, the whole image.

    Args:
        images: [B, 3, H, W].
        scale: Smallest and largest share of the area.
        generator: Source of the rectangles.
        share: Which images of a batch these are; all by default.
        mode: Of `torch.nn.functional.interpolate`, with antialiasing.
    """
    share = share or Share.whole(len(images))
    size = (images.shape[-2], images.shape[-1])
    boxes = _boxes(size, scale, _CROP_RATIO, share.total, generator)[share.rows]
    return torch.cat(
        [
            F.interpolate(image[None, :, y : y + h, x : x + w], size, mode=mode, antialias=True)
            for image, (y, x, h, w) in zip(images, boxes, strict=True)
        ]
        or [images]
    )


def erase(
    images: Tensor, probability: float, generator: torch.Generator, share: Share | None = None
) -> Tensor:
    """Put normal noise into a rectangle of some images (Zhong et al., Random Erasing; timm).

    Its area is between 1/50 and 1/3 of the image, its ratio between 0.3 and 1/0.3; an image into
    which none of ten rectangles fits stays as it is.

    Args:
        images: Normalised, [B, 3, H, W].
        probability: That an image gets one.
        generator: Source of choices, rectangles and noise.
        share: Which images of a batch these are; all by default.
    """
    share = share or Share.whole(len(images))
    size = (images.shape[-2], images.shape[-1])
    chosen = torch.rand(share.total, generator=generator) < probability
    boxes = _boxes(size, _ERASED_SHARE, _ERASED_RATIO, share.total, generator)
    erased = images.clone()
    for place, (y, x, h, w) in enumerate(boxes):
        if not chosen[place] or (h, w) == size:
            continue
        noise = torch.randn((images.shape[1], h, w), generator=generator)
        if share.begin <= place < share.end:
            erased[place - share.begin, :, y : y + h, x : x + w] = noise.to(images)
    return erased


def _boxes(
    size: tuple[int, int],
    scale: tuple[float, float],
    ratio: tuple[float, float],
    count: int,
    generator: torch.Generator,
) -> list[tuple[int, int, int, int]]:
    """Rectangles (y, x, height, width) inside an image of a size; the whole where none fits."""
    draws = torch.rand((4, count, _TRIES), generator=generator, dtype=torch.float64)
    area = size[0] * size[1] * (scale[0] + (scale[1] - scale[0]) * draws[0])
    low, high = math.log(ratio[0]), math.log(ratio[1])
    shape = torch.exp(low + (high - low) * draws[1])
    heights, widths = ((area / shape).sqrt().round(), (area * shape).sqrt().round())
    fits = (heights >= 1) & (widths >= 1) & (heights <= size[0]) & (widths <= size[1])
    found = []
    for place, fitting in enumerate(fits):
        tries = fitting.nonzero()
        if not len(tries):
            found.append((0, 0, *size))
            continue
        first = int(tries[0])
        h, w = int(heights[place, first]), int(widths[place, first])
        y = int(draws[2, place, first] * (size[0] - h + 1))
        x = int(draws[3, place, first] * (size[1] - w + 1))
        found.append((y, x, h, w))
    return found
