"""What a convolution of 3 x 3 windows rounds where it is computed by Winograd's filtering.

F(2 x 2, 3 x 3) makes tiles of 2 x 2 outputs out of sums of pixels and sums of weights
(`vitc.targets.kernels.winograd` has the formula), as kernels of ours do, and libraries that PyTorch
calls. These sums may be larger than any term of the convolution: a pixel whose weight is small
meets the weights of its neighbours. So its roundings are counted where they are made: in float64,
each place of a tile with the absolute values that its sums have.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["may_be_filtered", "winograd_rounding"]

_SIDE, _READ, _WINDOW = 2, 4, 3
_LEAST: Final = 16
"""Channels and outputs, with fewer of which nobody would."""

_UNIT: Final = 2.0**-24
_TINY: Final = 2.0**-126

_B: Final = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))
_G: Final = ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1))
_A: Final = ((1, 1, 1, 0), (0, 1, -1, -1))


def may_be_filtered(
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> bool:
    """Whether a convolution has the windows of Winograd's filtering; arguments as torch has them.

    Args:
        weight: [outputs, channels, height, width].
        stride: Pixels from one window to the next.
        padding: Pixels around the picture.
        dilation: Pixels from one tap to the next.
        transposed: Whether it is a transposed one.
        output_padding: Of a transposed one.
        groups: Parts of the channels that do not mix.
    """
    del padding, output_padding
    return (
        weight.dim() == 4
        and tuple(weight.shape[2:]) == (_WINDOW, _WINDOW)
        and min(weight.shape[:2]) >= _LEAST
        and {*stride, *dilation, groups} == {1}
        and not transposed
    )


def winograd_rounding(x: Tensor, weight: Tensor, padding: Sequence[int]) -> Tensor:
    """Root-mean-square error of each output, of what the filtering alone rounds.

    Args:
        x: Picture [images, channels, height, width], float64.
        weight: [outputs, channels, 3, 3], float64.
        padding: Pixels above and below, left and right.

    Returns:
        [images, outputs, height, width] of the result.
    """
    images, channels = x.shape[:2]
    sizes = [
        n + 2 * pad - _WINDOW + 1 for n, pad in zip(x.shape[2:], padding, strict=True)
    ]
    around: list[int] = []
    for size, pad in reversed([*zip(sizes, padding, strict=True)]):
        around += [pad, pad + size % _SIDE]
    d = F.pad(x, around).unfold(2, _READ, _SIDE).unfold(3, _READ, _SIDE)
    down, across = d.shape[2:4]
    made: dict[str, Any] = {"dtype": x.dtype, "device": x.device}
    b, g, a = (torch.tensor(matrix, **made) for matrix in (_B, _G, _A))

    def pixels(picture: Tensor, by: Tensor) -> Tensor:
        """[16, images * tiles, channels]."""
        v = torch.einsum("ip,jq,bcyxpq->ijbyxc", by, by, picture)
        return v.reshape(_READ**2, -1, channels)

    def weights(taps: Tensor, by: Tensor) -> Tensor:
        """[16, channels, outputs]."""
        u = torch.einsum("ip,jq,ocpq->ijco", by, by, taps)
        return u.reshape(_READ**2, channels, -1)

    v, largest_v = pixels(d, b), pixels(d.abs(), b.abs())
    u, largest_u = weights(weight, g), weights(weight.abs(), g.abs())
    sums = torch.matmul(v, u).abs_()
    # A sum over channels is added up in any order, as everywhere.
    partial = torch.matmul(largest_v, u.abs()).add_(sums).mul_(0.5)
    # Pixels are rounded in two additions of two and of four, weights in two of each.
    operands = torch.matmul(largest_v.square_(), largest_u.square()).mul_(6)
    squares = partial.square_().mul_(channels + 1).add_(operands)

    def outputs(places: Tensor, by: Tensor) -> Tensor:
        """Sums over the places of a tile [images, outputs, height, width]."""
        tiles = places.reshape(_READ, _READ, images, down, across, -1)
        made = torch.einsum("pi,qj,ijbyxo->boypxq", by, by, tiles)
        whole = made.reshape(images, -1, down * _SIDE, across * _SIDE)
        return whole[..., : sizes[0], : sizes[1]]

    signs = a.abs()
    added = outputs(sums, signs).square_().mul_(8)
    flushed = _TINY * (9 * channels + 4 * weight.abs().sum((1, 2, 3)).max())
    return outputs(squares, signs).add_(added).sqrt_().mul_(_UNIT).add_(flushed)
