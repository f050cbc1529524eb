"""From the logits of a segmentation network to a class for every pixel."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["classes_of_pixels"]


def classes_of_pixels(logits: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.int64]:
    """The class with the largest logit, where logits are made larger bilinearly.

    As `torch.nn.functional.interpolate` with ``align_corners`` false. Of equal logits the class of
    the smaller number is taken.

    Args:
        logits: [.., h, w, K].
        size: Height and width.

    Returns:
        int64 [.., H, W].
    """
    high = _interpolation(logits.shape[-3], size[0])
    wide = _interpolation(logits.shape[-2], size[1])
    larger = np.einsum("Hh,...hwk->...Hwk", high, logits, optimize=True)
    larger = np.einsum("Ww,...Hwk->...HWk", wide, larger, optimize=True)
    found: NDArray[np.int64] = larger.argmax(axis=-1)
    return found


def _interpolation(before: int, after: int) -> NDArray[np.float32]:
    """Weights [after, before] of the old places in each of the new."""
    place = np.clip((np.arange(after) + 0.5) * before / after - 0.5, 0, before - 1)
    low = np.minimum(place.astype(np.int64), max(before - 2, 0))
    share = place - low
    weights = np.zeros((after, before), np.float32)
    weights[np.arange(after), low] += 1 - share
    weights[np.arange(after), np.minimum(low + 1, before - 1)] += share
    return weights
