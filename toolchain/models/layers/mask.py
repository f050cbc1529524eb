"""Which keys are attended, and what becomes of the context, decided by integers: at inference.

While a network trains, a softmax decides. In eval mode, in exported files and on every device the
same rules act on integer scores; their constants are computed in float64 (scheme, `mask` and
`context`), so the bits are the same on every machine.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from vitc.errors import VitcError
from vitc.models import ops

__all__ = ["MASK_RATIO", "BiasedBestMask", "ContextThreshold", "ElasticMask", "RowBestMask"]

MASK_RATIO: Final = 0.25
"""A key is attended from this share of the row's largest probability on."""

_ONE: Final = 2.0**44
_MOST: Final = 1 << 62


class RowBestMask(nn.Module):
    """``p >= max(p) / 4`` of a softmax: within a Hamming distance of the row's nearest key.

    Args:
        head_width: d, length of the vectors whose sign products are scored.
        temperature: What scores are multiplied by before the softmax, positive.
    """

    def __init__(self, head_width: int, temperature: float) -> None:
        super().__init__()
        quotient = math.log(2) / temperature
        self.slack = head_width if quotient >= head_width else math.floor(quotient)

    def forward(self, scores: Tensor) -> Tensor:
        """Scores int32 [.., N, M] to bits."""
        bits: Tensor = ops.row_best_mask(scores, self.slack)
        return bits


class BiasedBestMask(nn.Module):
    """``p >= max(p) / 4`` of the softmax of scores with a bias of each pair of places.

    Args:
        temperature: s, what scores are multiplied by before the softmax, positive.
        bias: What is added there, [h, n, m].
        excluded: Pairs that never attend, bool [G, 1, n, m] or [1, 1, 1, 1].

    Attributes:
        bias: ``bias / s``, fp32: one addition and one comparison in fp32 decide, everywhere alike.
        cut: ``2 ln 2 / s``, an fp32 value.

    Raises:
        VitcError: If a quotient is not finite.
    """

    bias: Tensor
    excluded: Tensor

    def __init__(self, temperature: float, bias: Tensor, excluded: Tensor) -> None:
        super().__init__()
        quotients = (bias.double() / temperature).float()
        cut = np.float32(2 * math.log(2) / temperature)
        if not (quotients.isfinite().all() and np.isfinite(cut)):
            raise VitcError(
                f"A bias of scores divided by their scale {temperature:g} is beyond fp32.",
                "The training diverged; take an earlier checkpoint.",
            )
        self.cut = float(cut)
        self.register_buffer("bias", quotients)
        self.register_buffer("excluded", excluded)

    def forward(self, scores: Tensor) -> Tensor:
        """Scores int32 [.., G, h, n, m], or [.., h, n, m] of one group, to bits."""
        bits: Tensor = ops.biased_best_mask(scores, self.bias, self.excluded, self.cut)
        return bits


class ElasticMask(nn.Module):
    """``p > alpha / 2`` of a softmax (BiT's own mask): a row may attend to nothing.

    With h the distance above the row's nearest key, a key's weight in the softmax is
    ``exp(-2 s h)``; weights, and what a row may sum up to, are whole multiples of 2^-44.

    Args:
        head_width: d.
        temperature: s, what scores are multiplied by before the softmax, positive.
        alpha: Learned scale of the mask, positive.

    Attributes:
        terms: int64 [d + 1], weight by h.
        least: int64 [d + 1]: attended if this is more than the row's sum of weights.
    """

    terms: Tensor
    least: Tensor

    def __init__(self, head_width: int, temperature: float, alpha: float) -> None:
        super().__init__()
        weights = [_ONE * math.exp(-2 * temperature * h) for h in range(head_width + 1)]
        least = [min(math.ceil(weight * 2 / alpha), _MOST) for weight in weights]
        self.register_buffer("terms", torch.tensor([round(w) for w in weights]))
        self.register_buffer("least", torch.tensor(least))

    def forward(self, scores: Tensor) -> Tensor:
        """Scores int32 [.., N, M] to bits."""
        bits: Tensor = ops.elastic_mask(scores, self.terms, self.least)
        return bits


class ContextThreshold(nn.Module):
    """Bits of a context whose scale and shifts are learned: ``O >= rows[n] + columns[k]``.

    Args:
        scale: c, positive: ``c * O + shift + move`` is what is binarized.
        shift: [n], of a query's place.
        move: [h, d], of a channel.

    Attributes:
        rows: ``-shift / c``, fp32 [n, 1].
        columns: ``-move / c``, fp32 [h, 1, d].

    Raises:
        VitcError: If a quotient is not finite.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, scale: float, shift: Tensor, move: Tensor) -> None:
        super().__init__()
        rows = (-shift.double() / scale).float()[:, None]
        columns = (-move.double() / scale).float()[:, None, :]
        if not (rows.isfinite().all() and columns.isfinite().all()):
            raise VitcError(
                f"A shift of a context divided by its scale {scale:g} is beyond fp32.",
                "The training diverged; take an earlier checkpoint.",
            )
        self.register_buffer("rows", rows)
        self.register_buffer("columns", columns)

    def forward(self, context: Tensor) -> Tensor:
        """Context int32 [.., h, n, d] to bits."""
        bits: Tensor = ops.sum_threshold(context, self.rows, self.columns)
        return bits
