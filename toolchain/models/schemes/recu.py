"""ReCU: weights clamped to a quantile in training, a learned scale a row that also scales the bias.

The scheme's own code: weights, inputs, their gradients and the schedule of tau, for convolutions. A
token stands for a pixel, and q, k and v follow the rule of inputs (ours). The scale starts at the
mean of the absolute weights (ours; there it is uniform, with a norm behind it), and the sign of 0
is +1 (ours; there 0).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitc.models import straight_through
from vitc.models.schemes.scheme import Scheme

if TYPE_CHECKING:
    from vitc.models.binary_linear import BinaryLinear
    from vitc.models.layers.attention import BinaryAttention

__all__ = ["RECU", "ReCU", "tau_of"]

_EPS: Final = 1e-5
_TAU: Final = (0.85, 0.99)
_NEGATIVE: Final = 0.15


def tau_of(epoch: int, epochs: int, limits: tuple[float, float] = _TAU) -> float:
    """The quantile to which weights are clamped, as it grows over the epochs.

    Args:
        epoch: Counted from 0.
        epochs: Of how many.
        limits: At the beginning, and what it grows to.
    """
    low, high = limits
    return low + (high - low) * (math.exp(epoch / epochs) - 1) / (math.e - 1)


def _standardised(weight: Tensor) -> Tensor:
    centred = weight - weight.mean(dim=-1, keepdim=True)
    deviation = (weight.var(dim=-1, keepdim=True) + _EPS).sqrt()
    return centred * (2 * math.sqrt(2)) / deviation


def _quantile(standardised: Tensor, tau: Tensor) -> Tensor:
    """Laplace's quantile of tau, by the maximum likelihood of its scale: one number a tensor."""
    return -standardised.abs().mean() * torch.log(2 - 2 * tau)


def _sign(x: Tensor, *, training: bool) -> Tensor:
    """Signs of [B, ..]; in training over an image's deviation, which gradients know of."""
    if training:
        deviation = (x.flatten(1).var(dim=1) + _EPS).sqrt()
        x = x / deviation.reshape(-1, *[1] * (x.ndim - 1))
    return straight_through.sign(x, (2 - 2 * x.detach().abs()).clamp(min=0))


class ReCU(Scheme):
    """``alpha_o * (sum_k sgn(W - rowmean) sgn(x) + b_o)``, with alpha [O] learned.

    Its parameters in a linear: `alpha` [O], which may become negative or 0; and the buffer `tau`.
    """

    name: ClassVar[str] = "recu"
    source: ClassVar[str] = (
        "ReCU: Reviving the Dead Weights in Binary Neural Networks, ICCV 2021, section 3"
    )

    parameters: ClassVar[tuple[str, ...]] = ("alpha", "tau")

    def equip(self, linear: BinaryLinear) -> None:
        """Add alpha and tau."""
        # A step with 32-bit weights does without alpha, and a parameter without a gradient stops
        # training in several processes.
        learned = linear.weight_bits == 1
        start = linear.matrix.detach().abs().mean(dim=-1)
        linear.alpha = nn.Parameter(start, requires_grad=learned)
        linear.register_buffer("tau", torch.tensor(_TAU[0]))

    def centre(self, weight: Tensor, parts: int) -> Tensor:
        """Rows minus their means: neither scaling nor clamping moves a sign."""
        del parts
        return weight - weight.mean(dim=-1, keepdim=True)

    def affine(self, linear: BinaryLinear) -> tuple[Tensor, Tensor]:
        """Alpha, and alpha times the bias."""
        alpha = linear.alpha.double()
        return alpha, alpha * linear.bias.double()

    def inputs(self, linear: BinaryLinear, x: Tensor) -> Tensor:
        """Signs over the image's deviation; the gradient is max(0, 2 - 2 |x|)."""
        return _sign(x, training=linear.training)

    def product(self, linear: BinaryLinear, values: Tensor) -> Tensor:
        """Gradients pass the sign, then the clamp, then the standardised weight."""
        standardised = _standardised(linear.matrix)
        most = _quantile(standardised.detach(), linear.tau)
        clamped = torch.clamp(standardised, -most, most)
        sums = F.linear(values, straight_through.sign(clamped), linear.bias)
        return linear.alpha * sums

    def attended(self, attention: BinaryAttention, x: Tensor, which: str) -> Tensor:
        """As inputs: the scale behind them knows no unit, so they are divided too (ours)."""
        del which
        return _sign(x, training=attention.training)

    @torch.no_grad()
    def begin_epoch(self, linear: BinaryLinear, epoch: int, epochs: int) -> None:
        """Set tau."""
        linear.tau.fill_(tau_of(epoch, epochs))

    @torch.no_grad()
    def narrow(self, linear: BinaryLinear) -> None:
        """Alpha becomes the mean of the absolute weights, and the bias is divided by it."""
        alpha = linear.matrix.abs().mean(dim=-1)
        linear.alpha.copy_(alpha)
        linear.bias.copy_(torch.where(alpha > 0, linear.bias / alpha, linear.bias))

    @torch.no_grad()
    def randomise(self, linear: BinaryLinear, generator: torch.Generator) -> None:
        """Alpha around the mean of the absolute weights, some negative and one 0."""
        mean = linear.matrix.abs().mean(dim=-1)
        factor = 0.5 + torch.rand(mean.shape, generator=generator)
        negative = torch.rand(mean.shape, generator=generator) < _NEGATIVE
        linear.alpha.copy_(mean * torch.where(negative, -factor, factor))
        zero = int(torch.randint(len(mean), (), generator=generator))
        linear.alpha[zero] = 0
        linear.bias.div_(mean)
        linear.tau.fill_(_TAU[1])


RECU = ReCU()
