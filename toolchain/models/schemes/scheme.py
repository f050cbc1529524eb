"""What a binarization scheme has to say, as data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

__all__ = ["Scheme"]


@dataclass(frozen=True)
class Scheme:
    """Rules that turn a latent weight [O, K] and an activation into signs.

    A binary linear is ``y[o] = scale(W)[o] * sum_k sgn(centre(W)[o, k]) * sgn(x[k]) + b[o]``; a
    scheme of this form is one more entry in the table.

    Attributes:
        name: Key in the table and in configurations.
        source: Where the rules come from.
        centre: Latent weight [O, K] to the values [O, K] whose signs are the binary weight.
        scale: Latent weight [O, K] to the positive output scale [O].
        weight_window: The gradient of a weight's sign is 1 where its centred value is inside
            (-window, window), else 0.
        activation_window: The same for activations.
    """

    name: str
    source: str
    centre: Callable[[Tensor], Tensor]
    scale: Callable[[Tensor], Tensor]
    weight_window: float
    activation_window: float
