"""What a program gives a compiled model, as the array that its library reads.

Nothing is guessed: what is no array of floating point numbers, or loses a value when it becomes
float32, is refused.
"""

from __future__ import annotations

import sys
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vitc.errors import VitcError

__all__ = ["as_images", "plain_array"]

_NORMALISE: Final = "Normalise images as the network was trained, and give them as float32."
_BYTES: Final = "Give pixels from 0 to 255 as uint8, resized and cropped, not normalised."
_EXTENDED: Final = ("bfloat16", "float8_e4m3fn", "float8_e5m2")
"""Types of the package ml_dtypes, which NumPy calls kind V."""


def as_images(
    given: object,
    shape: tuple[int, int, int],
    name: str = "The input",
    *,
    of_bytes: bool = False,
) -> npt.NDArray[Any]:
    """Return images as float32 [number, channels, height, width] in C order and this byte order.

    Args:
        given: An array of any float type, order and memory, a tensor, or nested lists.
        shape: Channels, height and width of an image.
        name: What to call it in an error.
        of_bytes: Whether they are pixels from 0 to 255, uint8, not normalised.

    Raises:
        VitcError: If it is something else or of another shape, holds NaN or infinity, or a number
            beyond float32.
    """
    wanted = " x ".join(str(size) for size in shape)
    kind, hint = ("uint8", _BYTES) if of_bytes else ("float32", _NORMALISE)
    try:
        array = plain_array(given)
    except Exception as error:  # whatever the type at hand makes of it
        said = str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
        raise VitcError(
            f"{name} is a {type(given).__name__} that is no array ({said}), wanted {kind} of "
            f"N x {wanted}.",
            hint,
        ) from error
    if array.dtype.kind in "OUSV" and array.dtype.name not in _EXTENDED:
        what = "None" if given is None else f"a {type(given).__name__}{_contents(array)}"
        raise VitcError(f"{name} is {what}, wanted {kind} of N x {wanted}.", hint)
    if array.dtype != np.uint8 if of_bytes else array.dtype.kind not in "fV":
        raise VitcError(f"{name} holds {array.dtype}, wanted {kind}.", hint)
    if array.ndim != 4 or array.shape[1:] != shape or not len(array):
        found = " x ".join(str(size) for size in array.shape) or "no dimensions"
        raise VitcError(
            f"{name} has shape {found}, wanted N x {wanted}.", _shape_hint(array.shape, shape)
        )
    if of_bytes:
        return np.ascontiguousarray(array)
    with np.errstate(over="ignore", invalid="ignore"):
        images = np.ascontiguousarray(array, np.float32)
    finite = np.isfinite(images)
    if not finite.all():
        place = tuple(int(i) for i in np.argwhere(~finite)[0])
        value = float(array[place]) if array.dtype.kind == "V" else array[place]
        beyond = " beyond float32" if np.isfinite(value) else ""
        said = "NaN" if np.isnan(value) else f"{value:g}"
        raise VitcError(
            f"{name} holds {said}{beyond} at {list(place)}, wanted finite values.",
            "Check the preprocessing.",
        )
    return images


def plain_array(given: object) -> npt.NDArray[Any]:
    """Return an array, a tensor or nested lists as an array, of whatever type it is.

    Raises:
        Exception: Whatever the type at hand makes of it.
    """
    if isinstance(given, list | tuple) and any(_is_tensor(part) for part in given):
        return np.stack([plain_array(part) for part in given])
    if _is_tensor(given):
        return _of_tensor(given)
    if isinstance(given, np.ma.MaskedArray) and np.ma.is_masked(given):
        raise ValueError("some values are masked")
    return np.asarray(given)


def _is_tensor(given: object) -> bool:
    torch = sys.modules.get("torch")  # who has a tensor has imported it
    return torch is not None and isinstance(given, torch.Tensor)


def _of_tensor(tensor: Any) -> npt.NDArray[Any]:
    torch = sys.modules["torch"]
    plain = tensor.detach().cpu().resolve_conj().resolve_neg()
    if plain.is_floating_point() and plain.dtype not in (torch.float64, torch.float32):
        plain = plain.float()
    array: npt.NDArray[Any] = plain.numpy()
    return array


def _contents(array: npt.NDArray[Any]) -> str:
    if not array.ndim or not array.size:
        return ""
    return f" of {type(array.flat[0]).__name__}"


def _shape_hint(found: tuple[int, ...], wanted: tuple[int, int, int]) -> str:
    channels, height, width = wanted
    if found == wanted:
        return "Put an axis for the images in front: x[None]."
    if found[-3:] == (height, width, channels) and len(found) in (3, 4):
        axes = "(2, 0, 1)[None]" if len(found) == 3 else "(0, 3, 1, 2)"
        return f"The colours come first: x.transpose{axes}."
    return "A network is locked to its image size: resize the images, or train for this size."
