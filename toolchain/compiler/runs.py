"""Runs: how an fp32 product reads the rows of its left operand, where they lie.

A row is put together of runs of floats that lie one behind the other, all of one length; a run may
be padding. So an order, a window and the taps of a convolution are read without being laid out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vitc.compiler.graph import Array, Op, Use, refused

__all__ = ["PADDING", "Runs", "places_of", "steps_of", "windows_of"]

PADDING = -1
"""Place of a float that is zero, and nowhere."""


@dataclass(frozen=True, eq=False)
class Runs:
    """Where runs begin.

    Attributes:
        places: Floats from the beginning of memory to each run, int64 [rows, runs].
        length: Floats of a run.
    """

    places: Array
    length: int

    @classmethod
    def of(cls, floats: Array) -> Runs:
        """Find the longest runs.

        Args:
            floats: Place of every float [rows, floats of a row].
        """
        floats = np.ascontiguousarray(floats)
        joined = np.diff(floats, axis=1) == 1
        joined |= (floats[:, 1:] == PADDING) & (floats[:, :-1] == PADDING)
        ends = np.flatnonzero(~joined.all(axis=0)) + 1
        length = int(np.gcd.reduce([*ends, floats.shape[1]]))
        return cls(floats[:, ::length], length)

    def cut(self, longest: int) -> Runs:
        """The same floats in shorter runs, where rows are several runs that are longer.

        Args:
            longest: Most floats of a run, if some length up to that divides it.
        """
        length = next(n for n in range(min(longest, self.length), 0, -1) if self.length % n == 0)
        if self.places.shape[1] == 1 or length < longest // 2:
            return self
        starts = self.places[:, :, None] + np.arange(0, self.length, length)
        starts = np.where(self.places[:, :, None] == PADDING, PADDING, starts)
        return Runs(starts.reshape(len(self.places), -1), length)

    @property
    def padded(self) -> bool:
        """Whether some are padding."""
        return bool((self.places == PADDING).any())

    @property
    def distance(self) -> int | None:
        """Floats from one row to the next, where a row is one run and all lie evenly from 0 on."""
        rows, runs = self.places.shape
        distance = int(self.places[1, 0]) if rows > 1 else 0
        even = np.arange(rows) * distance
        fits = runs == 1 and distance >= 0 and np.array_equal(self.places[:, 0], even)
        return distance if fits else None

    @property
    def corners(self) -> tuple[Array, Array] | None:
        """The first run of each row and the places of all from there, if those are the same."""
        first = self.places[:, :1]
        places = self.places - first
        if self.padded or not np.array_equal(places, np.broadcast_to(places[:1], places.shape)):
            return None
        return first[:, 0], places[0]


def places_of(use: Use, stride: int) -> Array:
    """Place of every float that is read, in the shape of what is read.

    Args:
        use: What is read.
        stride: Floats from one row of the value to the next, in memory.
    """
    channels = use.value.channels
    elements = use.elements
    if elements is None:
        shape = use.value.shape
        elements = np.arange(np.prod(shape, dtype=np.int64)).reshape(shape)
    return elements // channels * stride + elements % channels


def steps_of(places: Array) -> tuple[int, ...] | None:
    """Floats from one to the next along each axis, where they lie evenly from the first on.

    Args:
        places: Place of every float.
    """
    steps = [0] * places.ndim
    even = np.zeros(places.shape, np.int64)
    for axis, size in enumerate(places.shape):
        if size > 1:
            at = np.zeros(places.ndim, np.int64)
            at[axis] = 1
            steps[axis] = int(places[tuple(at)] - places.flat[0])
        numbers = np.arange(size) * steps[axis]
        even += numbers.reshape([-1 if a == axis else 1 for a in range(places.ndim)])
    return tuple(steps) if np.array_equal(places, even) else None


def windows_of(places: Array, op: Op, sides: tuple[int, ...]) -> Array:
    """Place of every float of the windows of a convolution.

    Args:
        places: Of a picture [height, width, colours].
        op: The convolution: its strides, dilations, pads, and the number of its `places`.
        sides: Of a window.

    Returns:
        Places [windows, height, width, colours]; what is beyond the picture is padding.

    Raises:
        VitcError: If the padding is not stated in numbers.
    """
    given = op.attributes.get
    if given("auto_pad", "NOTSET") not in ("NOTSET", b"NOTSET", "VALID", b"VALID"):
        raise refused(op, "its padding is not stated in numbers")
    strides, dilations = given("strides", (1, 1)), given("dilations", (1, 1))
    before, counts = given("pads", (0,) * 4), op.attributes["places"]
    lines = []
    for axis, side in enumerate(sides):
        first = np.arange(counts[axis])[:, None] * strides[axis] - before[axis]
        line = first + np.arange(side) * dilations[axis]
        lines.append(np.where((line >= 0) & (line < places.shape[axis]), line, PADDING))
    y, x = lines[0][:, None, :, None], lines[1][None, :, None, :]
    taps = places[y, x].astype(np.int32)
    taps[(y == PADDING) | (x == PADDING)] = PADDING
    return taps.reshape(-1, *sides, places.shape[-1])
