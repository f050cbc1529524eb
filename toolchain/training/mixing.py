"""Mixup and CutMix: two images and their labels become one."""

from __future__ import annotations

import math
import random

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["mix"]


def mix(
    images: Tensor,
    targets: Tensor,
    classes: int,
    generator: torch.Generator,
    *,
    mixup: float = 0.0,
    cutmix: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Mix neighbours of a batch, by one share for all (Zhang et al., mixup; Yun et al., CutMix).

    As in timm: the share of an image is drawn from Beta(a, a); of both methods one is taken, each
    as often. Places 0 and 1 are mixed with each other, 2 and 3, and so on; what is left alone
    stays. So the halves of a batch can be mixed apart, if each begins at an even place.

    Args:
        images: [B, 3, H, W].
        targets: int64 [B].
        classes: Number of them.
        generator: Source of choice, share and rectangle, the same number of draws in any case.
        mixup: a of mixup, weighted means of images; 0 for none.
        cutmix: a of CutMix, rectangles of other images; 0 for none.

    Returns:
        Images, and the share of each class in them, fp32 [B, classes].
    """
    draws = torch.rand(4, generator=generator, dtype=torch.float64).tolist()
    cut = cutmix > 0 and (mixup <= 0 or draws[0] < 0.5)
    alpha = cutmix if cut else mixup
    own = random.Random(draws[1]).betavariate(alpha, alpha)  # noqa: S311 - PyTorch's has no generator
    partner = torch.arange(len(images), device=images.device) ^ 1
    partner = torch.where(partner < len(images), partner, partner ^ 1)
    if cut:
        height, width = images.shape[-2:]
        y, below = _side(height, own, draws[2])
        x, right = _side(width, own, draws[3])
        own = 1 - (below - y) * (right - x) / (height * width)
        mixed = images.clone()
        mixed[:, :, y:below, x:right] = images[partner][:, :, y:below, x:right]
    else:
        mixed = own * images + (1 - own) * images[partner]
    shares = F.one_hot(targets, classes).float()
    return mixed, own * shares + (1 - own) * shares[partner]


def _side(length: int, own: float, draw: float) -> tuple[int, int]:
    """Begin and end of a rectangle on an axis: its centre is anywhere, what is outside is cut."""
    half = int(length * math.sqrt(1 - own)) // 2
    centre = int(draw * length)
    return max(centre - half, 0), min(centre + half, length)
