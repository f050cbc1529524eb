"""What a check runs on when it is given nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vitc.errors import VitcError
from vitc.models.network import Network
from vitc.models.preprocessing import colours_first
from vitc.names import DATA
from vitc.runtime import arrays
from vitc.runtime.port import Port

if TYPE_CHECKING:
    from vitc.training.data import Dataset

__all__ = ["calibration", "probe_images", "probe_inputs", "probe_ports"]


_BATCH: Final = 16


def calibration(model: nn.Module, data: str | None, count: int) -> Iterator[Tensor]:
    """Batches of what a network takes, to find the ranges of its values.

    Args:
        model: A `Network`.
        data: ``digits``, or a folder of class folders or of images, of which those to learn from
            are taken; None for `probe_inputs`.
        count: How many images at most, spread evenly.

    Raises:
        VitcError: If it is no `Network`, or the pictures cannot be read.
    """
    if not isinstance(model, Network):
        raise VitcError(
            f"A {type(model).__name__} does not say how pictures become its input.",
            "Give what `vitc.models.ends.calibrated` finds to `with_ends`.",
        )
    if hasattr(model, "example"):
        raise VitcError(
            f"A network of {model.config.arch} takes more than pictures, so it is not calibrated "
            "on those.",
            "Export it with --ends fp32.",
        )
    of_bytes = model.config.takes_bytes
    if data is None:
        port = Port("input", "uint8" if of_bytes else "float32", model.config.input_shape)
        made = probe_ports([port], min(count, _BATCH))["input"]
        return iter([torch.from_numpy(made)])
    # The training package is slow to import and only wanted with data.
    from vitc.training.data import load_dataset

    folder = Path(data)
    parted = data == DATA or ((folder / "train").is_dir())
    found = load_dataset(data, model.preprocessing, "train" if parted else "all", limit=count)
    return _batches(found, of_bytes=of_bytes)


def _batches(found: Dataset, *, of_bytes: bool) -> Iterator[Tensor]:
    for start in range(0, len(found), _BATCH):
        numbers = range(start, min(start + _BATCH, len(found)))
        if of_bytes:
            pixels = np.stack([found.pixels(number) for number in numbers])
            yield torch.from_numpy(colours_first(pixels))
        else:
            yield found.__getitems__(numbers)[0]


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
