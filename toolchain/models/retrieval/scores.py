"""How well a text and an image fit: late interaction of unit vectors, and of signs."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["late_interaction", "sign_interaction"]


def late_interaction(image: Tensor, text: Tensor, counted: Tensor | None = None) -> Tensor:
    """Score every image with every text: the best image vector of each text vector, summed.

    ``S[i, t] = sum_a max_b <text[t, a], image[i, b]>``, from text to image only (Inflate and
    Shrink, section 3.1). Vectors of padding words count like others, as in the paper's code.

    Args:
        image: Unit vectors [I, b, d].
        text: Unit vectors [T, a, d].
        counted: bool [T, a], the text vectors that stay in the sum; all of them if None.

    Returns:
        [I, T]: a row an image, a column a text.
    """
    products = torch.einsum("tad,ibd->itab", text, image)
    best = products.amax(dim=-1)
    if counted is not None:
        best = best * counted
    return best.sum(dim=-1)


def sign_interaction(image: Tensor, text: Tensor) -> Tensor:
    """The same of signs, as an integer: ``a * d - 2 * sum_a min_b hamming``.

    A sign vector's score is an exact integer, ``d`` times what `late_interaction` makes of the
    vectors ``sign / sqrt(d)``: the largest product is the smallest Hamming distance.

    Args:
        image: Signs as bits {0, 1}, uint8 [I, b, d]; 1 stands for +1.
        text: The same, [T, a, d].

    Returns:
        int32 [I, T].
    """
    signs = (2 * bits.to(torch.int32) - 1 for bits in (text, image))
    products = torch.einsum("tad,ibd->itab", *signs)
    return products.amax(dim=-1).sum(dim=-1, dtype=torch.int32)
