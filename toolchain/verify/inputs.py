"""Images that a check runs on when it is given none."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vitc.errors import VitcError

__all__ = ["probe_images"]


def probe_images(count: int, image_size: int, *, seed: int = 0) -> NDArray[np.float32]:
    """Deterministic images: random ones, and every fourth a structured one.

    The structured ones are flat, or gradients: natural images have such regions, where many values
    repeat and sums come out round.

    Args:
        count: How many.
        image_size: Height and width in pixels.
        seed: Of the random ones.

    Returns:
        float32 [count, 3, image_size, image_size], as if already normalised.

    Raises:
        VitcError: If `count` is less than 1.
    """
    if count < 1:
        raise VitcError(f"A check needs at least one image, found {count}.", "Pass --images 4.")
    images = np.random.default_rng(seed).standard_normal(
        (count, 3, image_size, image_size), dtype=np.float32
    )
    ramp = np.linspace(-2, 2, image_size, dtype=np.float32)
    structured = (
        np.broadcast_to(ramp[:, None], (image_size, image_size)),
        np.zeros((image_size, image_size), np.float32),
        np.broadcast_to(ramp, (image_size, image_size)),
        np.full((image_size, image_size), 0.75, np.float32),
    )
    for turn, index in enumerate(range(1, count, 4)):
        images[index] = structured[turn % len(structured)]
    return images
