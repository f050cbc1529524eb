"""Attention of all tokens to keys of a reduced map, as in PVT."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vitc.models.binary_linear import BinaryLinear, FrozenBinaryLinear
from vitc.models.layers.attention import BinaryAttention
from vitc.models.layers.convolution import without_overlap
from vitc.models.layers.groups import Grouping
from vitc.models.layers.norm import stream_norm
from vitc.models.schemes import Scheme
from vitc.models.taps import tap

__all__ = ["ReducedAttention"]


class ReducedAttention(BinaryAttention):
    """`BinaryAttention` whose keys are ``norm(Conv(u))`` of R x R places together.

    Norm and convolution are fp32, or the convolution is one of signs; with R 1 there are none, and
    keys are the queries' own input, through a linear of their own.

    Args:
        width: C.
        heads: h.
        tokens: N; of a map, but for the class token that may stand before it where R is 1.
        size: Rows and columns of the map, multiples of R.
        reduction: R.
        scheme: Binarization scheme, or its name.
        weight_bits: 1 or 32.
        norm: Of the reduced tokens, ``batch`` (of each) or ``layer``.
        merge: ``float`` or ``binary``, which the convolution is.
        eps: Of the norm.
        name: First part of the tap names.

    Attributes:
        sr: The convolution, if R > 1.
        norm: The norm behind it.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        tokens: int,
        *,
        size: tuple[int, int],
        reduction: int,
        scheme: Scheme | str = "bibert",
        weight_bits: int = 1,
        norm: str = "batch",
        merge: str = "float",
        eps: float = 1e-6,
        name: str = "",
    ) -> None:
        keys = tokens // reduction**2
        super().__init__(
            width, heads, tokens, keys=keys, scheme=scheme, weight_bits=weight_bits, name=name
        )
        self.size = size
        self.reduction = reduction
        if reduction > 1:
            self.sr: nn.Conv2d | BinaryLinear = (
                nn.Conv2d(width, width, reduction, reduction)
                if merge == "float"
                else BinaryLinear(width, width, scheme, weight_bits, moved=True, kernel=reduction)
            )
            self.norm = stream_norm(norm, keys, width, eps, f"{name}.reduced.norm")

    def forward(
        self, u: Tensor, keys: Tensor | None = None, groups: Grouping | None = None
    ) -> Tensor:
        """Attend: normalised tokens [B, N, C] to the projected context, fp32 [B, N, C]."""
        return super().forward(u, self._reduce(u) if keys is None else keys, groups)

    def _reduce(self, u: Tensor) -> Tensor:
        """What keys and values are made of, [B, m, C]."""
        if self.reduction == 1:
            return u
        if isinstance(self.sr, BinaryLinear | FrozenBinaryLinear):
            on_map = torch.unflatten(u, 1, self.size)
            places = without_overlap(self.sr, on_map, self.reduction, f"{self.name}.reduced")
        else:
            on_map = torch.unflatten(u.transpose(1, 2), 2, self.size)
            places = self.sr(on_map).flatten(2).transpose(1, 2)
        normal: Tensor = self.norm(tap(f"{self.name}.reduced", places))
        return normal
