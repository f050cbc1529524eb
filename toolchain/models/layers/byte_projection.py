"""The product of a patch embedding on bytes: exact integers, which are scaled once.

With normalisation folded in, a patch embedding is ``sum_k (w_k / (255 std_c)) p_k + (b - sum_k w_k
mean_c / std_c)`` of pixels p that are bytes already. So weights alone are rounded, to integers with
a scale an output; sums are exact in any order, and one multiplication and one addition in fp32
follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn

from vitc.errors import VitcError
from vitc.models import ops
from vitc.models.taps import tap

__all__ = ["BASE", "ByteProjection"]

BASE: Final = 128
"""Of the digits that integers consist of; each is an int8."""

_LEVELS: Final = 255
_MOST: Final = 2**31 - 1
_LEAST: Final = 2.0**-100
"""Of scales, and of biases that are not zero: products and sums are then no denormals, which some
processors take for zero."""


class ByteProjection(nn.Module):
    """Patches of bytes times integers.

    Args:
        proj: The convolution without overlap that it stands for, on normalised images.
        mean: A colour, of values from 0 to 1.
        std: A colour.
        digits: S, of each integer: 1 for 8 bits, 2 for 15.
        name: Of the patch embedding; its integers are tapped as ``<name>.sums``.

    Attributes:
        weight: int8 [S, O, K], digits of base 128, the highest first; K is colours, height, width.
        scale: fp32 [O].
        bias: fp32 [O].

    Raises:
        VitcError: If sums could be beyond 32 bits.
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor

    def __init__(
        self,
        proj: nn.Conv2d,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        digits: int,
        name: str,
    ) -> None:
        super().__init__()
        self.name = name
        self.patch = int(proj.kernel_size[0]), int(proj.kernel_size[1])
        centre, spread = (
            torch.tensor(each, dtype=torch.float64).reshape(1, -1, 1, 1) for each in (mean, std)
        )
        normal = proj.weight.detach().double() / spread
        folded = (normal / _LEVELS).flatten(1)
        most = BASE**digits - 1
        scale = (folded.abs().amax(1) / most).clamp(min=_LEAST).float()
        integers = (folded / scale.double()[:, None]).round().clamp(-most, most).long()
        parts = []
        for _ in range(digits - 1):
            parts.append(integers % BASE)
            integers = integers // BASE
        weight = torch.stack([integers, *reversed(parts)])
        _refuse_overflow(weight, name)
        bias = -(normal * centre).sum((1, 2, 3))
        if proj.bias is not None:
            bias = bias + proj.bias.detach().double()
        bias = torch.where(bias.abs() < _LEAST, 0, bias)
        self.register_buffer("weight", weight.to(torch.int8))
        self.register_buffer("scale", scale)
        self.register_buffer("bias", bias.float())

    def forward(self, image: Tensor) -> Tensor:
        """Bytes [B, C, H, W] to patches [B, N, O], row-major.

        Raises:
            VitcError: If the images are no bytes.
        """
        if image.dtype != torch.uint8:
            raise VitcError(
                f"A network with an integer embedding takes bytes (uint8), found {image.dtype}.",
                "Give pixels from 0 to 255, resized and cropped, not normalised.",
            )
        high, wide = self.patch
        cut = torch.unflatten(torch.unflatten(image, 3, (-1, wide)), 2, (-1, high))
        rows = cut.permute(0, 2, 4, 1, 3, 5).flatten(3, 5).flatten(1, 2)
        sums = tap(f"{self.name}.sums", ops.byte_linear(rows, self.weight), "int")
        return sums.to(self.scale.dtype) * self.scale + self.bias


def _refuse_overflow(weight: Tensor, name: str) -> None:
    """Bound all sums of any bytes, in any order: of positive weights, and of negative ones."""
    total = torch.zeros_like(weight[0])
    for digits in weight:
        for summed in (total * BASE, digits, total * BASE + digits):
            bound = _LEVELS * torch.stack((summed.clamp(min=0), -summed.clamp(max=0))).sum(-1)
            if int(bound.max()) > _MOST:
                raise VitcError(
                    f"Sums of {name} could be beyond 32 bits: its {weight.shape[-1]} integers of "
                    f"{8 * len(weight) - (len(weight) > 1)} bits come to up to {int(bound.max())} "
                    "with bytes.",
                    "Export it with --embedding int8, or fp32.",
                )
        total = total * BASE + digits
