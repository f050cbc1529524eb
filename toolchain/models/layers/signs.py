"""What acts on signs, whichever form they have.

In eval mode a sign is a bit (uint8, 1 for +1) and every sum of products an exact integer (int32, by
`vitc.models.ops`); in training mode it is a float in {-1, +1} with a straight-through gradient, and
so is the sum. A layer is written once, of these.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vitc.models import ops

__all__ = ["are_bits", "masked_sum", "products"]


def are_bits(x: Tensor) -> bool:
    """Whether signs, or a mask, are bits and no floats."""
    return x.dtype == torch.uint8


def products(q: Tensor, k: Tensor) -> Tensor:
    """Sums of sign products: [.., N, d] and [.., M, d] to [.., N, M]."""
    return ops.binary_scores(q, k) if are_bits(q) else q @ k.mT


def masked_sum(mask: Tensor, v: Tensor) -> Tensor:
    """Sums of the signs of `v` [.., M, d] that a mask [.., N, M] lets through: [.., N, d]."""
    return ops.mask_sign_matmul(mask, v) if are_bits(mask) else mask @ v
