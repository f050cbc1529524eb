"""What a binarization scheme has to say: one class, in one file, with one entry in the table.

A scheme gives a binary linear parameters beside weight and bias, and says how latent weights and
activations become values while it trains, with their gradients, and which constants remain at
inference. There every scheme is the same layer: ``y[o] = scale[o] * I[o] + bias[o]``, where I is
the sum of sign products.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from vitc.models import straight_through
from vitc.models.layers.mask import MASK_RATIO, RowBestMask

if TYPE_CHECKING:
    from torch import nn

    from vitc.models.binary_linear import BinaryLinear
    from vitc.models.layers.attention import BinaryAttention

__all__ = ["Scheme"]


class Scheme(ABC):
    """The rules of one scheme; it has no state, parameters lie in the layers.

    ``weight`` is [O, K]. While training, signs are float values whose gradient stands in for that
    of the sign; quantized values carry whatever scale the scheme gives them.

    Attributes:
        name: Key in the table and in configurations.
        source: Where the rules come from.
        parameters: Ends of the names of its own parameters.
        moves: Whether a linear has a learned move for each input channel, before the sign.
        elastic: Whether masks are the scheme's own, and no share of the row's largest p.
    """

    name: ClassVar[str]
    source: ClassVar[str]
    parameters: ClassVar[tuple[str, ...]] = ()
    moves: ClassVar[bool] = False
    elastic: bool = False

    def equip(self, linear: BinaryLinear) -> None:
        """Give a new linear the scheme's own parameters, beside weight and bias."""
        del linear

    def equip_attention(self, attention: BinaryAttention) -> None:
        """Give a new attention the scheme's own parameters."""
        del attention

    @abstractmethod
    def centre(self, weight: Tensor, parts: int) -> Tensor:
        """Values [O, K] whose signs are the binary weight.

        Args:
            weight: Latent weight [O, K].
            parts: Row sections of equal size that are tensors of their own (q, k and v).
        """

    @abstractmethod
    def affine(self, linear: BinaryLinear) -> tuple[Tensor, Tensor]:
        """Scale and bias at inference, each float64 [O], computed from the widened parameters."""

    @abstractmethod
    def inputs(self, linear: BinaryLinear, x: Tensor) -> Tensor:
        """Quantized inputs of a linear in training, float in the shape of `x` [B, .., K].

        What moves them is in `x` already.
        """

    @abstractmethod
    def product(self, linear: BinaryLinear, values: Tensor) -> Tensor:
        """Output [.., O] in training, bias included, of quantized inputs [.., K]."""

    def wide(self, linear: BinaryLinear, values: Tensor) -> Tensor:
        """The same with 32-bit weights (the 32W1A step)."""
        return F.linear(values, linear.matrix, linear.bias)

    def values(self, linear: BinaryLinear, bits: Tensor) -> Tensor:
        """What `inputs` would be where these bits are their signs."""
        return bits.to(linear.weight.dtype) * 2 - 1

    @abstractmethod
    def attended(self, attention: BinaryAttention, x: Tensor, which: str) -> Tensor:
        """Quantized queries, keys or values in training, float in the shape of `x` [B, ..].

        Args:
            attention: The layer.
            x: What is before the sign.
            which: ``query``, ``key`` or ``value``.
        """

    def masked(self, attention: BinaryAttention, p: Tensor) -> Tensor:
        """Quantized mask in training, float, of probabilities [.., N, M]."""
        del attention
        return straight_through.attention_mask(p, MASK_RATIO)

    def temperature(self, attention: BinaryAttention) -> float:
        """What integer scores are multiplied by before the softmax, in float64."""
        return 1 / math.sqrt(attention.head_width)

    def mask(self, attention: BinaryAttention) -> nn.Module:
        """The rule by which integer scores [.., N, M] become mask bits at inference."""
        return RowBestMask(attention.head_width, self.temperature(attention))

    def context(self, attention: BinaryAttention) -> nn.Module | None:
        """The rule by which the integer context [.., h, n, d] becomes bits at inference.

        None if it is what a linear reads of the context and the shift of the place.
        """
        del attention
        return None

    def begin_epoch(self, linear: BinaryLinear, epoch: int, epochs: int) -> None:
        """Set what follows a schedule.

        Args:
            linear: A linear in training.
            epoch: Counted from 0.
            epochs: Of how many.
        """
        del linear, epoch, epochs

    def narrow(self, linear: BinaryLinear) -> None:
        """Prepare a linear that was trained with 32-bit weights for binary ones."""
        del linear

    def randomise(self, linear: BinaryLinear, generator: torch.Generator) -> None:
        """Give the scheme's own parameters random values like trained ones.

        Args:
            linear: Its weight and bias are random already, the bias as of a linear whose scale is
                the mean of the absolute weights.
            generator: Where random numbers come from.
        """
        del linear, generator

    def randomise_attention(self, attention: BinaryAttention, generator: torch.Generator) -> None:
        """The same for an attention, whose linears and shifts are random already."""
        del attention, generator
