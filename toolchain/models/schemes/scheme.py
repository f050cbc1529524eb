"""What a binarization scheme has to say: one class, in one file, with one entry in the table.

A scheme gives a binary linear parameters beside weight and bias, and says how latent weights and
activations become values while it trains, with their gradients, and which constants remain at
inference. There every scheme is the same layer: ``y[o] = scale[o] * I[o] + bias[o]``, where I is
the sum of sign products.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from torch import nn

    from vitc.models.binary_linear import BinaryLinear

__all__ = ["Scheme"]


class Scheme(ABC):
    """The rules of one scheme; it has no state, parameters lie in the layers.

    ``weight`` is [O, K]. While training, signs are float values whose gradient stands in for that
    of the sign; quantized values carry whatever scale the scheme gives them.

    Attributes:
        name: Key in the table and in configurations.
        source: Where the rules come from.
    """

    name: ClassVar[str]
    source: ClassVar[str]

    def equip(self, linear: BinaryLinear) -> None:
        """Give a new linear the scheme's own parameters, beside weight and bias."""
        del linear

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
        """Quantized inputs of a linear in training, float in the shape of `x` [B, .., K]."""

    @abstractmethod
    def product(self, linear: BinaryLinear, values: Tensor) -> Tensor:
        """Output [.., O] in training, bias included, of quantized inputs [.., K]."""

    def wide(self, linear: BinaryLinear, values: Tensor) -> Tensor:
        """The same with 32-bit weights (the 32W1A step), in training."""
        return F.linear(values, linear.weight, linear.bias)

    @abstractmethod
    def attended(self, attention: nn.Module, x: Tensor, which: str) -> Tensor:
        """Quantized queries, keys or values in training, float in the shape of `x` [B, ..].

        Args:
            attention: The layer.
            x: What is before the sign.
            which: ``query``, ``key`` or ``value``.
        """

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
