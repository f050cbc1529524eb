"""What is predicted of a patch: histograms of oriented gradients, pixels, a teacher's features.

DMJD, section III-D, after MaskFeat (Wei et al., CVPR 2022); numbers are those of the authors' code.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

from vitc.errors import VitcError

__all__ = ["BINS", "hog", "hog_targets", "patched", "pixel_targets", "spread_of", "unpatched"]

BINS: Final = 9
"""Of 20 degrees each."""

_CELLS: Final = 2
_PIXEL_EPS: Final = 1e-6


def hog(images: Tensor, cell: int) -> Tensor:
    """Histograms of oriented gradients, before they are normalised.

    Args:
        images: Values 0..255, [B, C, H, W].
        cell: Side of a cell in pixels.

    Returns:
        Mean magnitude of the gradients of each direction, [B, C, H / cell, W / cell, 9].
    """
    x = images if images.is_floating_point() else images.to(torch.float32)
    down, across = torch.zeros_like(x), torch.zeros_like(x)
    down[:, :, 1:-1] = x[:, :, 2:] - x[:, :, :-2]
    across[..., 1:-1] = x[..., 2:] - x[..., :-2]
    magnitude = torch.hypot(across, down)
    turn = torch.atan2(down, across) * (180 / math.pi) % 180
    # Rounding may reach 180 itself, which is 0.
    bins = (turn / (180 / BINS)).floor().to(torch.int64) % BINS
    of_each = [F.avg_pool2d(magnitude * (bins == index), cell) for index in range(BINS)]
    return torch.stack(of_each, dim=-1)


def hog_targets(images: Tensor, patch: int) -> Tensor:
    """Histograms of the 2 x 2 cells of each patch, each normalised over its directions.

    A cell without gradients gives zeros.

    Args:
        images: Augmented crops in values 0..255, before mean and deviation, [B, C, H, W].
        patch: Side of a patch in pixels.

    Returns:
        [B, tokens, 36 * C], in the order cell row, cell column, direction, channel.

    Raises:
        VitcError: If patches cannot be halved, or do not divide the image.
    """
    _check_patches(images, patch)
    if patch % _CELLS:
        raise VitcError(
            f"A patch of {patch} pixels has no two cells a side.",
            "Gradients need an even patch size; choose pixels as the target.",
        )
    batch, channels, height, width = images.shape
    told = F.layer_norm(hog(images, patch // _CELLS), (BINS,))
    grid = told.reshape(
        batch, channels, height // patch, _CELLS, width // patch, _CELLS, BINS
    ).permute(0, 2, 4, 3, 5, 6, 1)
    return grid.flatten(3).flatten(1, 2)


def pixel_targets(images: Tensor, patch: int) -> Tensor:
    """Pixels of each patch, normalised by its mean and deviation (He et al., MAE, section 4.1).

    Args:
        images: [B, C, H, W]; the scale does not matter.
        patch: Side of a patch in pixels.

    Returns:
        [B, tokens, patch * patch * C], in the order row, column, channel.

    Raises:
        VitcError: If patches do not divide the image.
    """
    pixels = patched(images, patch)
    mean, std = spread_of(pixels)
    return (pixels - mean) / std


def patched(images: Tensor, patch: int) -> Tensor:
    """Images to the pixels of their patches, in the order row, column, channel.

    Args:
        images: [B, C, H, W].
        patch: Side of a patch in pixels.

    Returns:
        [B, tokens, patch * patch * C].

    Raises:
        VitcError: If patches do not divide the image.
    """
    _check_patches(images, patch)
    batch, channels, height, width = images.shape
    x = images if images.is_floating_point() else images.to(torch.float32)
    cut = x.reshape(batch, channels, height // patch, patch, width // patch, patch)
    return cut.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)


def unpatched(pixels: Tensor, patch: int, grid: tuple[int, int]) -> Tensor:
    """What `patched` did, undone.

    Args:
        pixels: [B, tokens, patch * patch * C].
        patch: Side of a patch in pixels.
        grid: Rows and columns of patches.
    """
    rows, columns = grid
    cut = pixels.reshape(len(pixels), rows, columns, patch, patch, -1)
    return cut.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)


def spread_of(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each patch, [B, tokens, 1], of its pixels [B, tokens, n]."""
    spread, mean = torch.var_mean(pixels, dim=-1, keepdim=True)
    return mean, (spread + _PIXEL_EPS).sqrt()


def _check_patches(images: Tensor, patch: int) -> None:
    height, width = images.shape[-2:]
    if height % patch or width % patch:
        raise VitcError(
            f"Patches of {patch} pixels do not divide images of {height} x {width}.",
            "Choose another image size.",
        )
