"""What a user gives `vitc run`, as input tensors, a batch at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from vitc.errors import VitcError
from vitc.models.config import NetworkConfig
from vitc.models.picture import SUFFIXES
from vitc.models.picture_files import counted, find_pictures
from vitc.models.preprocessing import Preprocessing, colours_first

__all__ = ["Inputs", "read_inputs", "validated"]

_SAVE: Final = "Save it with np.save('x.npy', x.astype(np.float32)), already normalised."
_SAVE_BYTES: Final = "Save pixels from 0 to 255 as uint8, resized and cropped, not normalised."


@dataclass(frozen=True, eq=False)
class Inputs:
    """Images for a network, read when they are asked for.

    Attributes:
        names: Where each comes from.
        part: Reads images start to end: float32 [end - start, 3, H, W], normalised, or uint8 for an
            integer embedding. Raises a `VitcError` that names what is wrong with one of them.
        left: What lies in folders that were given and is no picture, and how often.
        files: The pictures; none of an array.
    """

    names: Sequence[str]
    part: Callable[[int, int], NDArray[Any]]
    left: Mapping[str, int] = field(default_factory=dict)
    files: Sequence[Path] = ()

    def __len__(self) -> int:
        return len(self.names)

    def batches(self, size: int) -> Iterator[tuple[Sequence[str], NDArray[Any]]]:
        """Names and images in order, `size` at a time; no more than those are in memory."""
        for start in range(0, len(self), size):
            end = min(start + size, len(self))
            yield self.names[start:end], self.part(start, end)


def read_inputs(
    paths: Sequence[Path], config: NetworkConfig, preprocessing: Preprocessing
) -> Inputs:
    """Find images, or open one array.

    Args:
        paths: Image files and folders of them, or one ``.npy`` of float32 [B, 3, H, W] that is
            already normalised; for an integer embedding of uint8.
        config: Gives the image size that the network takes, and whether it takes bytes.
        preprocessing: Applied to image files.

    Raises:
        VitcError: If a file or folder is missing, a folder holds no pictures, or the array is
            damaged or of a wrong type or shape.
    """
    if not paths:
        raise VitcError("There is no input.", "Name images, or one .npy file.")
    arrays = [path for path in paths if path.suffix == ".npy"]
    if not arrays:
        return _pictures(paths, preprocessing, of_bytes=config.takes_bytes)
    if len(paths) > 1:
        raise VitcError(
            f"{arrays[0]} stands beside other inputs.", "Name images, or one .npy file."
        )
    name, array = str(arrays[0]), _array(arrays[0])
    _check_form(array, config, name)
    names = tuple(f"{arrays[0].name}[{i}]" for i in range(len(array)))
    return Inputs(names, lambda start, end: _finite(array[start:end], name, start))


def validated(pixels: NDArray[np.generic], config: NetworkConfig, name: str) -> NDArray[Any]:
    """The array, if the network takes it.

    Raises:
        VitcError: If it is not float32 [B, 3, H, W] of finite values, or uint8 for an integer
            embedding, and of the network's size.
    """
    _check_form(pixels, config, name)
    return _finite(pixels, name)


def _check_form(pixels: NDArray[np.generic], config: NetworkConfig, name: str) -> None:
    wanted = config.input_shape
    dtype, save = (np.uint8, _SAVE_BYTES) if config.takes_bytes else (np.float32, _SAVE)
    if pixels.dtype != dtype:
        raise VitcError(f"{name} holds {pixels.dtype}, wanted {np.dtype(dtype)}.", save)
    if pixels.ndim != 4 or pixels.shape[1:] != wanted or not len(pixels):
        raise VitcError(
            f"{name} has shape {list(pixels.shape)}, wanted [B, {', '.join(map(str, wanted))}].",
            _reshaped(pixels.shape, wanted),
        )


def _reshaped(shape: tuple[int, ...], wanted: tuple[int, int, int]) -> str:
    """How an array of another shape becomes one of images."""
    colours, *sides = wanted
    if shape[-3:] == (*sides, colours) and len(shape) in (3, 4):
        first = "x" if len(shape) == 4 else "x[None]"
        return f"Its colours are the last axis: save {first}.transpose(0, 3, 1, 2)."
    if shape == wanted:
        return "It is one image: save x[None]."
    return "A network runs on the image size it was made for; resize the images."


def _finite(pixels: NDArray[np.generic], name: str, first: int = 0) -> NDArray[Any]:
    if pixels.dtype == np.uint8:
        return np.ascontiguousarray(pixels)
    finite = np.isfinite(pixels)
    if not finite.all():
        place = [int(i) for i in np.argwhere(~finite)[0]]
        value = pixels[tuple(place)]
        raise VitcError(f"{name} holds {value} at {[first + place[0], *place[1:]]}.", _SAVE)
    return np.ascontiguousarray(pixels, dtype=np.float32)


def _array(path: Path) -> NDArray[np.generic]:
    if not path.is_file():
        raise VitcError(f"There is no file {path}.", "Check the path.")
    try:
        # A map checks the length that the header claims before anything is allocated.
        mapped: NDArray[np.generic] = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # whatever a damaged header makes NumPy and its parser raise
        first = str(error).strip().partition("\n")[0]
        raise VitcError(f"{path} is not a whole .npy file ({first}).", _SAVE) from error
    return mapped


def _pictures(
    paths: Sequence[Path], preprocessing: Preprocessing, *, of_bytes: bool = False
) -> Inputs:
    files: list[Path] = []
    left: Counter[str] = Counter()
    for path in paths:
        if path.is_dir():
            found = find_pictures(path)
            if not found.files:
                others = f"; it has {counted(found.left)}" if found.left else ""
                raise VitcError(
                    f"{path} holds no pictures{others}.",
                    f"Wanted files ending in {', '.join(sorted(SUFFIXES))}.",
                )
            files += found.files
            left.update(found.left)
        elif path.exists():
            files.append(path)
        else:
            raise VitcError(f"There is no file {path}.", "Check the path.")

    def part(start: int, end: int) -> NDArray[Any]:
        pixels = np.stack([preprocessing.read(file) for file in files[start:end]])
        return colours_first(pixels) if of_bytes else preprocessing.normalise(pixels)

    return Inputs(tuple(str(file) for file in files), part, left, files)
