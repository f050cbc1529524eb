"""What a program gives a port, as the array that the library reads; nothing is guessed."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from vitc.errors import VitcError
from vitc.runtime.images import as_images, plain_array
from vitc.runtime.port import Port

__all__ = [
    "PROBE_EXTENT",
    "TIMED_EXTENT",
    "Bound",
    "as_bytes",
    "as_port_array",
    "bind_inputs",
    "filled",
    "probe_inputs",
]

Array = npt.NDArray[np.generic]

_KINDS = {"float32": "fV", "int32": "iu", "uint8": "iub"}
_IMAGE_AXES = 3
_INTEGERS = 16
"""Below which integers of no known range are probed."""
PROBE_EXTENT = 41
"""Rows of a port of the extent of a run that are probed: no tile divides them."""
TIMED_EXTENT = 20_000
"""Rows that are timed."""


class Bound(dict[str, Array]):
    """Arrays by the names of input ports.

    Attributes:
        images: How many there are in the arrays of each image; 1 if there are no such arrays.
        n: The extent of the run; 0 if no port has one.
    """

    images: int = 1
    n: int = 0

    def part(self, ports: tuple[Port, ...], start: int, count: int) -> dict[str, Array]:
        """The arrays of a batch: those of each image as `filled` gives them, the others whole."""
        each = {port.name for port in ports if port.per_image}
        return {
            name: filled(array, start, count) if name in each else array
            for name, array in self.items()
        }


def filled(array: Array, start: int, count: int) -> Array:
    """`count` images from `start` on; the last image fills up what is missing.

    Copies only where something is missing.
    """
    part = array[start : start + count]
    missing = count - len(part)
    return np.concatenate([part, np.repeat(array[-1:], missing, axis=0)]) if missing else part


def bind_inputs(given: object, ports: tuple[Port, ...]) -> Bound:
    """Return the arrays of all inputs of an entry.

    Args:
        given: Arrays by name, or for an entry of one input its array.
        ports: The inputs.

    Raises:
        VitcError: If a name is unknown or missing, an array does not fit its port, or two arrays
            are of different numbers of images or different extents.
    """
    if not isinstance(given, Mapping):
        if len(ports) > 1:
            raise VitcError(
                f"One array was given; the inputs are {'; '.join(map(str, ports))}.",
                "Give a dictionary of arrays by name.",
            )
        name = "The input" if _is_image(ports[0]) else ports[0].name
        given, names = {ports[0].name: given}, {ports[0].name: name}
    else:
        names = {port.name: port.name for port in ports}
    unknown, missing = set(given) - set(names), set(names) - set(given)
    if unknown or missing:
        what = "Unknown" if unknown else "Missing"
        raise VitcError(
            f"{what} inputs: {', '.join(sorted(map(str, unknown or missing)))}; the inputs are "
            f"{'; '.join(map(str, ports))}.",
            "Give each input by its name.",
        )
    bound = Bound(
        {port.name: as_port_array(given[port.name], port, names[port.name]) for port in ports}
    )
    bound.images = _one("images", {p.name: len(bound[p.name]) for p in ports if p.per_image})
    lengths = {p.name: bound[p.name].shape[_axis(p)] for p in ports if p.extent}
    bound.n = _one("length n", lengths) if lengths else 0
    return bound


def _axis(port: Port) -> int:
    """The axis of an array that has the extent."""
    return port.shape.index(None) + port.per_image


def _one(what: str, sizes: Mapping[str, int]) -> int:
    if len(set(sizes.values())) > 1:
        said = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise VitcError(f"Inputs differ in {what}: {said}.", "Give as many of each.")
    return next(iter(sizes.values()), 1)


def _is_image(port: Port) -> bool:
    return port.of_pixels or (port.of_floats and len(port.shape) == _IMAGE_AXES)


def as_port_array(given: object, port: Port, name: str) -> Array:
    """Return an array for a port, in C order and of its type.

    Args:
        given: An array, a tensor or nested lists.
        port: The port.
        name: What to call it in an error.

    Raises:
        VitcError: If it is of another kind or shape, or holds what the port does not: NaN,
            infinity, an index beyond the limit, an integer beyond the type.
    """
    if _is_image(port):
        channels, height, width = (int(size or 0) for size in port.shape)
        return as_images(given, (channels, height, width), name, of_bytes=port.of_pixels)
    try:
        array = plain_array(given)
    except Exception as error:  # whatever the type at hand makes of it
        raise VitcError(
            f"{name} is a {type(given).__name__} that is no array, wanted {port}."
        ) from error
    if array.dtype.kind not in _KINDS[port.dtype]:
        raise VitcError(f"{name} holds {array.dtype}, wanted {port}.", "Convert it.")
    wanted = (None, *port.shape) if port.per_image else port.shape
    fits = len(wanted) == array.ndim and all(
        size in (None, found) for size, found in zip(wanted, array.shape, strict=True)
    )
    if not fits or (port.per_image and not len(array)):
        raise VitcError(f"{name} has shape {list(array.shape)}, wanted {port}.", "Reshape it.")
    if port.dtype == "float32":
        with np.errstate(over="ignore", invalid="ignore"):
            values: Array = np.ascontiguousarray(array, np.float32)
        wrong, what = ~np.isfinite(values), "finite values"
    elif port.limit is None and array.dtype == port.dtype:
        return np.ascontiguousarray(array)  # any value fits
    else:
        top = port.limit if port.limit is not None else np.iinfo(port.dtype).max + 1
        low = 0 if port.limit is not None else np.iinfo(port.dtype).min
        wrong, what = (array < low) | (array >= top), f"{low} to {top - 1}"
    if wrong.any():
        place = [int(i) for i in np.argwhere(wrong)[0]]
        raise VitcError(
            f"{name} holds {array[tuple(place)]} at {place}, wanted {what}.", "Check its making."
        )
    return np.ascontiguousarray(array, port.dtype)


def as_bytes(floats: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Numbers of about N(0, 1) as pixels."""
    return np.clip(np.rint(floats * 64 + 128), 0, 255).astype(np.uint8)


def probe_inputs(
    ports: tuple[Port, ...],
    images: int,
    seed: int,
    *,
    n: int = PROBE_EXTENT,
    widths: Mapping[str, int] = MappingProxyType({}),
) -> dict[str, Array]:
    """Deterministic random arrays that fit input ports: floats N(0, 1), integers in their limits.

    Args:
        ports: The inputs.
        images: How many, where a port is of each image.
        seed: Of the numbers.
        n: Extent of the run, where a port has it.
        widths: Of ports of packed bits, how many bits their last axis holds; bytes of other ports
            are 0 or 1.
    """
    rng = np.random.default_rng(seed)
    made: dict[str, Array] = {}
    for port in ports:
        shape = port.sizes(images, n)
        if port.name in widths:
            bits = rng.integers(0, 2, (*shape[:-1], widths[port.name]), dtype=np.uint8)
            made[port.name] = np.packbits(bits, axis=-1, bitorder="little")
            continue
        if port.dtype == "float32":
            made[port.name] = rng.standard_normal(shape, dtype=np.float32)
        elif port.of_pixels:
            made[port.name] = rng.integers(0, 256, shape).astype(np.uint8)
        else:
            top = port.limit or (2 if port.dtype == "uint8" else _INTEGERS)
            made[port.name] = rng.integers(0, top, shape).astype(port.dtype)
    return made
