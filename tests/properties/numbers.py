"""Numbers that break comparisons, and strategies that mix them into random ones."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

__all__ = ["SPECIAL", "arrays_of", "rngs"]

_LARGEST = float(np.finfo(np.float32).max)
_SMALLEST = 1.401298464324817e-45

SPECIAL = np.array(
    [0.0, -0.0, _SMALLEST, -_SMALLEST, 1.2e-38, -1.2e-38, _LARGEST, -_LARGEST, 1.0, -1.0],
    np.float32,
)


def rngs() -> st.SearchStrategy[np.random.Generator]:
    """Random generators; an example is as small as its seed."""
    return st.integers(0, 2**32 - 1).map(np.random.default_rng)


def arrays_of(rng: np.random.Generator, shape: tuple[int, ...], infinite: float = 0) -> np.ndarray:
    """fp32 values: small multiples of 1/4 (so that ties are frequent), normals, special ones.

    Args:
        rng: Source.
        shape: Shape.
        infinite: Infinity to mix in, with its sign; 0 for none.
    """
    kind = rng.integers(0, 4, shape)
    values = np.where(kind < 2, rng.integers(-12, 13, shape) / 4, rng.standard_normal(shape))
    values = np.where(kind == 3, rng.choice(SPECIAL, shape), values).astype(np.float32)
    if infinite:
        values = np.where(rng.random(shape) < 0.15, np.float32(infinite), values)
    return values.astype(np.float32)
