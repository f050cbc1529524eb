"""Convolutions of signs: a binary linear of places of a map side by side."""

from __future__ import annotations

import torch
from torch import Tensor

from vitc.models.binary_linear import BinaryLinear, FrozenBinaryLinear
from vitc.models.taps import tap

__all__ = ["around", "without_overlap"]

_SIDE = 3


def without_overlap(
    linear: BinaryLinear | FrozenBinaryLinear, x: Tensor, side: int, name: str
) -> Tensor:
    """Places of R x R, without overlap, through a binary linear.

    Args:
        linear: Of R R C inputs (`kernel` R).
        x: Map [B, H, W, C], H and W multiples of R.
        side: R.
        name: First part of the tap of its bits.

    Returns:
        fp32 [B, H W / R^2, O], row-major.
    """
    bits = linear.binarize(x)
    _, height, width, _ = x.shape
    cut = torch.unflatten(bits, 2, (width // side, side))
    cut = torch.unflatten(cut, 1, (height // side, side))
    places = cut.permute(0, 1, 3, 2, 4, 5).flatten(3, 5).flatten(1, 2)
    out: Tensor = linear(tap(f"{name}.input", places, "bits"))
    return out


def around(linear: BinaryLinear | FrozenBinaryLinear, x: Tensor, name: str) -> Tensor:
    """A 3 x 3 convolution of signs with a border of +1.

    Args:
        linear: Of 9 C inputs (`kernel` 3).
        x: Map [B, H, W, C].
        name: First part of the tap of its bits.

    Returns:
        fp32 [B, H, W, O].
    """
    _, height, width, _ = x.shape
    bits = linear.binarize(x, border=_SIDE // 2)
    taps = [
        bits[:, row : row + height, column : column + width]
        for row in range(_SIDE)
        for column in range(_SIDE)
    ]
    places = torch.cat(taps, dim=-1).flatten(1, 2)
    out: Tensor = linear(tap(f"{name}.input", places, "bits"))
    return torch.unflatten(out, 1, (height, width))
