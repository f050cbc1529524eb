"""BiT: one mean and scale a tensor, inputs moved by channel, activation scales that are learned.

The scheme's own code: weights, moved inputs, elastic scales with their gradients and first batch,
the mask ``p > alpha / 2`` (option `elastic`). Ours: the mask of a quarter of the row's largest p
where that is not asked for, with a learned scale too; the move after the block's own shifts, and
none on fc2; whether a scale has met its first batch is saved; q, k and v are three tensors of their
linear (k and v two); the sign of 0 is +1.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitc.models import straight_through
from vitc.models.layers.mask import MASK_RATIO, ContextThreshold, ElasticMask, RowBestMask
from vitc.models.processes import counted, processes, summed
from vitc.models.schemes.scheme import Scheme

if TYPE_CHECKING:
    from vitc.models.binary_linear import BinaryLinear
    from vitc.models.layers.attention import BinaryAttention

__all__ = ["BIT", "BIT_ELASTIC", "BiT"]

_LEAST: Final = 1e-5
"""Of an activation scale."""

_INPUT: Final = "input_clip_val"
_CLIPS: Final = ("clip_query", "clip_key", "clip_value", "clip_attn")


def _add_scale(owner: nn.Module, name: str) -> None:
    owner.register_parameter(name, nn.Parameter(torch.ones(())))
    owner.register_buffer(f"{name}_initialised", torch.tensor(data=False))


def _exact(owner: nn.Module, name: str) -> float:
    """A scale at inference."""
    return max(float(owner.get_parameter(name).double()), _LEAST)


@torch.no_grad()
def _first_batch(owner: nn.Module, name: str, factor: float, x: Tensor) -> None:
    """Begin with a multiple of the mean absolute value, of all processes' first batches."""
    flag = owner.get_buffer(f"{name}_initialised")
    if flag:
        return
    mean = x.abs().mean()
    if processes() > 1:
        mean = summed(x.abs().sum()) / counted(x.numel(), x)
    owner.get_parameter(name).copy_(factor * mean)
    flag.fill_(value=True)


def elastic_sign(owner: nn.Module, name: str, x: Tensor) -> Tensor:
    """``alpha * sgn(x)``: gradient of x inside [-alpha, alpha], of alpha the sum of signs."""
    _first_batch(owner, name, 2, x)
    alpha = owner.get_parameter(name)
    with torch.no_grad():
        clip = alpha.clamp(min=_LEAST)
        signs = straight_through.signs(x)
        inside = x.abs() <= clip
    return straight_through.scaled(x, alpha, clip * signs, inside, signs)


def elastic_bit(owner: nn.Module, name: str, x: Tensor) -> Tensor:
    """``alpha`` where round(x / alpha) >= 1, else 0; x is not negative where it matters."""
    _first_batch(owner, name, 4, x)
    alpha = owner.get_parameter(name)
    with torch.no_grad():
        clip = alpha.clamp(min=_LEAST)
        bits = (x > clip / 2).to(x.dtype)
        inside = (x >= 0) & (x <= clip)
        share = torch.where(inside, bits - x / clip, bits)
    return straight_through.scaled(x, alpha, clip * bits, inside, share)


class BiT(Scheme):
    """``alpha_a * mean|W| * sum_k sgn(W - mean(W)) sgn(x + move) + b``.

    Its parameters in a linear: `move.bias` [K], `input_clip_val` (alpha_a); in an attention
    `clip_query`, `clip_key`, `clip_value` and `clip_attn`, one for all heads. Beside each scale
    lies a flag, NAME_initialised: it has met its first batch.

    Args:
        elastic: Whether a key is attended by ``p > clip_attn / 2``.
    """

    name: ClassVar[str] = "bit"
    source: ClassVar[str] = "BiT: Robustly Binarized Multi-distilled Transformer, NeurIPS 2022"
    parameters: ClassVar[tuple[str, ...]] = ("move.bias", _INPUT, *_CLIPS)
    moves: ClassVar[bool] = True

    def __init__(self, *, elastic: bool = False) -> None:
        self.elastic = elastic

    def equip(self, linear: BinaryLinear) -> None:
        """Add the scale of inputs."""
        _add_scale(linear, _INPUT)

    def equip_attention(self, attention: BinaryAttention) -> None:
        """Add the scales of queries, keys, values and masks."""
        for name in _CLIPS:
            _add_scale(attention, name)

    def centre(self, weight: Tensor, parts: int) -> Tensor:
        """Each tensor minus its mean."""
        sections = weight.reshape(parts, -1, weight.shape[1])
        return (sections - sections.mean(dim=(1, 2), keepdim=True)).flatten(0, 1)

    def _means(self, weight: Tensor, parts: int) -> Tensor:
        """Mean absolute weight of each row's tensor, [O]."""
        means = weight.abs().reshape(parts, -1).mean(dim=1)
        return means.repeat_interleave(len(weight) // parts)

    def affine(self, linear: BinaryLinear) -> tuple[Tensor, Tensor]:
        """Scale of the inputs times mean absolute weight, and the bias."""
        alpha = linear.get_parameter(_INPUT).double().clamp(min=_LEAST)
        return alpha * self._means(linear.matrix.double(), linear.parts), linear.bias.double()

    def inputs(self, linear: BinaryLinear, x: Tensor) -> Tensor:
        """Scaled signs of what was moved."""
        return elastic_sign(linear, _INPUT, x)

    def product(self, linear: BinaryLinear, values: Tensor) -> Tensor:
        """Gradients pass the sign, and none goes through scale or mean."""
        weight, parts = linear.matrix, linear.parts
        with torch.no_grad():
            means = self._means(weight, parts)[:, None]
            binary = straight_through.signs(self.centre(weight, parts), means)
        return F.linear(values, straight_through.quantized(weight, binary), linear.bias)

    def values(self, linear: BinaryLinear, bits: Tensor) -> Tensor:
        """Signs times the scale of the inputs."""
        alpha = linear.get_parameter(_INPUT).clamp(min=_LEAST)
        return super().values(linear, bits) * alpha

    def attended(self, attention: BinaryAttention, x: Tensor, which: str) -> Tensor:
        """Scaled signs; nothing is moved (in the scheme's own code the moves are dead)."""
        return elastic_sign(attention, f"clip_{which}", x)

    def masked(self, attention: BinaryAttention, p: Tensor) -> Tensor:
        """The scale where a key is attended, else 0."""
        if self.elastic:
            return elastic_bit(attention, "clip_attn", p)
        _first_batch(attention, "clip_attn", 4, p)
        alpha = attention.get_parameter("clip_attn")
        with torch.no_grad():
            mask = (p >= MASK_RATIO * p.amax(dim=-1, keepdim=True)).to(p.dtype)
            value = mask * alpha.clamp(min=_LEAST)
        return straight_through.scaled(p, alpha, value, None, mask)

    def temperature(self, attention: BinaryAttention) -> float:
        """Scales of queries and keys over the root of the head width."""
        query, key = (_exact(attention, f"clip_{which}") for which in ("query", "key"))
        return query * key / math.sqrt(attention.head_width)

    def mask(self, attention: BinaryAttention) -> nn.Module:
        """By the row's best, or elastic."""
        width, temperature = attention.head_width, self.temperature(attention)
        if not self.elastic:
            return RowBestMask(width, temperature)
        return ElasticMask(width, temperature, _exact(attention, "clip_attn"))

    def context(self, attention: BinaryAttention) -> nn.Module:
        """Scales of masks and values divide the shift of the place and the move of the channel."""
        scale = _exact(attention, "clip_attn") * _exact(attention, "clip_value")
        move = attention.proj.move
        assert move is not None  # noqa: S101 - this scheme moves every input that may be moved
        channels = move.bias.reshape(attention.heads, attention.head_width)
        return ContextThreshold(scale, attention.movefc.bias.flatten(), channels)

    @torch.no_grad()
    def randomise(self, linear: BinaryLinear, generator: torch.Generator) -> None:
        """A scale around 1, and small moves."""
        _randomise(linear, _INPUT, 1.0, generator)
        if linear.move is not None:
            moves = linear.move.bias
            moves.copy_(0.2 * torch.randn(moves.shape, generator=generator))

    @torch.no_grad()
    def randomise_attention(self, attention: BinaryAttention, generator: torch.Generator) -> None:
        """Scales like those of unit variance; shifts of the context in their measure."""
        for name in _CLIPS[:3]:
            _randomise(attention, name, 1.0, generator)
        keys = attention.movek.bias.shape[2]
        _randomise(attention, "clip_attn", 3 / keys, generator)
        scale = _exact(attention, "clip_attn") * _exact(attention, "clip_value")
        attention.movefc.bias.mul_(scale)
        if attention.proj.move is not None:
            attention.proj.move.bias.mul_(scale * keys**0.5)


def _randomise(owner: nn.Module, name: str, around: float, generator: torch.Generator) -> None:
    factor = 0.7 + 0.6 * torch.rand((), generator=generator)
    owner.get_parameter(name).copy_(around * factor)
    owner.get_buffer(f"{name}_initialised").fill_(value=True)


BIT = BiT()
BIT_ELASTIC = BiT(elastic=True)
