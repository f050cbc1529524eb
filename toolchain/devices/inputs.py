"""What a user gives `vitc run`, as an input tensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from vitc.errors import VitcError
from vitc.models.config import ModelConfig, Preprocessing

__all__ = ["Inputs", "read_inputs", "validated"]

_SAVE: Final = "Save it with np.save('x.npy', x.astype(np.float32)), already normalised."
_LARGEST_ARRAY: Final = (1 << 30) + 4096
"""Bytes, header included: what the runner reads."""


@dataclass(frozen=True, eq=False)
class Inputs:
    """Images ready for a network.

    Attributes:
        pixels: float32 [B, 3, H, W], normalised.
        names: Where each comes from.
    """

    pixels: NDArray[np.float32]
    names: tuple[str, ...]


def read_inputs(paths: Sequence[Path], config: ModelConfig, preprocessing: Preprocessing) -> Inputs:
    """Read images, or one array.

    Args:
        paths: Image files, or one ``.npy`` of float32 [B, 3, H, W] that is already normalised.
        config: Gives the image size that the network takes.
        preprocessing: Applied to image files.

    Raises:
        VitcError: If a file is missing, unreadable, or of a wrong type, shape or value.
    """
    if not paths:
        raise VitcError("There is no input.", "Name images, or one .npy file.")
    arrays = [path for path in paths if path.suffix == ".npy"]
    if arrays:
        if len(paths) > 1:
            raise VitcError(
                f"{arrays[0]} stands beside other inputs.", "Name images, or one .npy file."
            )
        pixels = validated(_array(arrays[0]), config, str(arrays[0]))
        return Inputs(pixels, tuple(f"{arrays[0].name}[{i}]" for i in range(len(pixels))))
    pixels = preprocessing.normalise(np.stack([preprocessing.read(path) for path in paths]))
    return Inputs(validated(pixels, config, str(paths[0])), tuple(str(path) for path in paths))


def validated(pixels: NDArray[np.generic], config: ModelConfig, name: str) -> NDArray[np.float32]:
    """The array, if the network takes it.

    Raises:
        VitcError: If it is not float32 [B, 3, H, W] of finite values and of the network's size.
    """
    size = config.image_size
    if pixels.dtype != np.float32:
        raise VitcError(f"{name} holds {pixels.dtype}, wanted float32.", _SAVE)
    if pixels.ndim != 4 or pixels.shape[1:] != (3, size, size) or not len(pixels):
        raise VitcError(
            f"{name} has shape {list(pixels.shape)}, wanted [B, 3, {size}, {size}].",
            "A network runs on the image size it was made for; resize the images.",
        )
    finite = np.isfinite(pixels)
    if not finite.all():
        place = [int(i) for i in np.argwhere(~finite)[0]]
        raise VitcError(f"{name} holds {pixels[tuple(place)]} at {place}.", _SAVE)
    return np.ascontiguousarray(pixels, dtype=np.float32)


def _array(path: Path) -> NDArray[np.generic]:
    if not path.is_file():
        raise VitcError(f"There is no file {path}.", "Check the path.")
    if path.stat().st_size > _LARGEST_ARRAY:
        raise VitcError(
            f"{path} has {path.stat().st_size} bytes; vitc reads arrays of up to 1 GiB.",
            "Split it.",
        )
    try:
        # A map checks the length that the header claims before anything is allocated.
        mapped: NDArray[np.generic] = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # whatever a damaged header makes NumPy and its parser raise
        first = str(error).strip().partition("\n")[0]
        raise VitcError(f"{path} is not a whole .npy file ({first}).", _SAVE) from error
    return np.array(mapped)
