"""What a check runs on when it is given nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitc.errors import VitcError
from vitc.runtime import arrays
from vitc.runtime.port import Port

__all__ = ["probe_images", "probe_inputs", "probe_ports"]


def probe_images(count: int, image_size: int, *, seed: int = 0) -> NDArray[np.float32]:
    """Square images of three colours, as `probe_inputs` makes them."""
    return probe_inputs(count, (3, image_size, image_size), seed=seed)


def probe_inputs(count: int, shape: tuple[int, ...], *, seed: int = 0) -> NDArray[np.float32]:
    """Deterministic inputs: random ones, and every fourth a structured one.

    The structured ones are flat, or gradients: natural images have such regions, where many values
    repeat and sums come out round.

    Args:
        count: How many.
        shape: Of one of them.
        seed: Of the random ones.

    Returns:
        float32 [count, *shape], as if already normalised.

    Raises:
        VitcError: If `count` is less than 1.
    """
    if count < 1:
        raise VitcError(f"A check needs at least one image, found {count}.", "Pass --images 4.")
    inputs = np.random.default_rng(seed).standard_normal((count, *shape), dtype=np.float32)
    across, down = (np.linspace(-2, 2, (1, 1, *shape)[axis], dtype=np.float32) for axis in (-1, -2))
    structured = (down[:, None] if len(shape) > 1 else down, 0.0, across, 0.75)
    for turn, index in enumerate(range(1, count, 4)):
        inputs[index] = structured[turn % len(structured)]
    return inputs


def probe_ports(ports: Sequence[Port], count: int, *, seed: int = 0) -> dict[str, NDArray[Any]]:
    """Deterministic inputs of a network: floats as `probe_inputs`, integers within their limits.

    Args:
        ports: Its inputs; each belongs to the image and has no extent.
        count: How many images.
        seed: The same seed gives the same inputs.

    Raises:
        VitcError: If `count` is less than 1.
    """
    made: dict[str, NDArray[Any]] = {}
    for turn, port in enumerate(ports):
        if port.dtype == "float32" or port.of_pixels:
            shape = port.sizes(count)[1:]
            inputs = probe_inputs(count, shape, seed=seed + turn)
            made[port.name] = arrays.as_bytes(inputs) if port.of_pixels else inputs
        else:
            made |= arrays.probe_inputs((port,), count, seed + turn)
    return made
