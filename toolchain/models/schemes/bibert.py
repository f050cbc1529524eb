"""BiBERT: signs of row-centred weights, one scale a row, no activation scale.

All of it is the scheme's own code but the sign of 0, which is +1 here and 0 there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from torch import Tensor
from torch.nn import functional as F

from vitc.models import straight_through
from vitc.models.schemes.scheme import Scheme
from vitc.models.straight_through import Window

if TYPE_CHECKING:
    from vitc.models.binary_linear import BinaryLinear
    from vitc.models.layers.attention import BinaryAttention

__all__ = ["BIBERT", "BiBERT"]


class BiBERT(Scheme):
    """``mean_k |W| * sum_k sgn(W - rowmean) sgn(x) + b``; gradients inside [-1, 1]."""

    name: ClassVar[str] = "bibert"
    source: ClassVar[str] = (
        "BiBERT: Accurate Fully Binarized BERT, ICLR 2022, section 2; SI-BiViT, section 3"
    )

    def centre(self, weight: Tensor, parts: int) -> Tensor:
        """Rows minus their means."""
        del parts
        return weight - weight.mean(dim=-1, keepdim=True)

    def affine(self, linear: BinaryLinear) -> tuple[Tensor, Tensor]:
        """Row means of the absolute weights, and the bias."""
        return linear.matrix.double().abs().mean(dim=-1), linear.bias.double()

    def inputs(self, linear: BinaryLinear, x: Tensor) -> Tensor:
        """Signs; the gradient passes where |x| <= 1."""
        del linear
        return straight_through.sign(x, Window(closed=True))

    def product(self, linear: BinaryLinear, values: Tensor) -> Tensor:
        """The gradient of the scaled sign goes to the centred weight where that is in [-1, 1]."""
        weight = linear.matrix
        centred = self.centre(weight, linear.parts)
        scale = weight.detach().abs().mean(dim=-1, keepdim=True)
        binary = straight_through.sign(centred, Window(closed=True), scale)
        return F.linear(values, binary, linear.bias)

    def attended(self, attention: BinaryAttention, x: Tensor, which: str) -> Tensor:
        """Signs; the gradient passes where |x| < 1."""
        del attention, which
        return straight_through.sign(x, Window())


BIBERT = BiBERT()
