"""A picture of what a pre-training sees: crops, masked views, and what is rebuilt of pixels."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from vitc.training.dmjd.masking import Views
from vitc.training.dmjd.targets import patched, spread_of, unpatched

__all__ = ["draw", "hidden", "rebuilt"]

_GREY: Final = 128.0
_INCHES: Final = 1.2


def hidden(images: Tensor, views: Views, patch: int) -> Tensor:
    """Images with their masked patches in grey.

    Args:
        images: Values 0..255, fp32 [B, 3, H, W].
        views: Of them.
        patch: Side of a patch in pixels.

    Returns:
        fp32 [K, B, 3, H, W].
    """
    return _with(images, torch.full_like(patched(images, patch), _GREY), views, patch)


def rebuilt(images: Tensor, predicted: Tensor, views: Views, patch: int) -> Tensor:
    """Images whose masked patches are what was predicted of them.

    Args:
        images: Values 0..255, fp32 [B, 3, H, W].
        predicted: Pixels normalised by patch, [K * B, tokens, 3 * patch * patch].
        views: Of the images.
        patch: Side of a patch in pixels.

    Returns:
        fp32 [K, B, 3, H, W]; mean and spread of a masked patch are its own.
    """
    mean, std = spread_of(patched(images, patch))
    count = len(predicted) // len(images)
    told = predicted * std.repeat(count, 1, 1) + mean.repeat(count, 1, 1)
    return _with(images, told, views, patch)


def _with(images: Tensor, told: Tensor, views: Views, patch: int) -> Tensor:
    count = len(views.keep) // len(images)
    own = patched(images, patch).repeat(count, 1, 1)
    told = told if len(told) == len(own) else told.repeat(count, 1, 1)
    mixed = torch.where(views.mask[..., None] > 0, told, own)
    height, width = images.shape[-2:]
    whole = unpatched(mixed, patch, (height // patch, width // patch))
    return torch.unflatten(whole.clamp(0, 255), 0, (count, len(images)))


def draw(columns: Sequence[tuple[str, Tensor]]) -> bytes:
    """Columns of images under their titles, as PNG.

    Args:
        columns: Title, and values 0..255 [B, 3, H, W].
    """
    rows = len(columns[0][1])
    size = (_INCHES * len(columns), _INCHES * rows + 0.3)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, len(columns), squeeze=False)
    for across, (title, images) in enumerate(columns):
        axes[0, across].set_title(title, fontsize=8)
        for down, image in enumerate(images):
            axis = axes[down, across]
            axis.imshow(image.permute(1, 2, 0).round().numpy().astype(np.uint8))
            axis.set_axis_off()
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=120)
    return content.getvalue()
