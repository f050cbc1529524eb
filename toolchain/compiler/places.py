"""Where the elements of an output lie in the buffer that holds them.

A layout only decodes whole buffers, and views only move elements. So a buffer is decoded whose
elements are their own numbers: a word at a time where they are words, a bit of all numbers at a
time where they are bits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vitc.targets.layouts import Layout
from vitc.targets.layouts.views import View, apply_views

__all__ = ["Runs", "element_numbers", "runs_of"]

Numbers = npt.NDArray[np.int64]

_WORD_BYTES = 4


@dataclass(frozen=True, eq=False)
class Runs:
    """Elements of a buffer, taken out in runs that lie one after the other there.

    Attributes:
        length: Elements of a run.
        starts: The element where each begins, int64 [runs].
        bits: Whether elements are bits; else they are words of four bytes.
    """

    length: int
    starts: Numbers
    bits: bool

    @property
    def stride(self) -> int | None:
        """Elements from one run to the next; None if they do not begin at 0 or at one distance."""
        if len(self.starts) == 1:
            return None if self.starts[0] else 0
        stride = int(self.starts[1])
        even = np.array_equal(self.starts, np.arange(len(self.starts)) * stride)
        return stride if even and stride >= 0 else None


def runs_of(layout: Layout, views: tuple[View, ...]) -> Runs:
    """Return the longest runs in which an output's elements lie.

    Args:
        layout: Of the buffer.
        views: From what the layout decodes to the output.

    Raises:
        ValueError: If the elements of the layout are neither bits nor words.
    """
    numbers, bits = element_numbers(layout)
    flat: Numbers = np.ascontiguousarray(apply_views(numbers, views)).reshape(-1)
    breaks = np.flatnonzero(np.diff(flat) != 1) + 1
    # All runs are of one length: the largest that divides every place where one breaks off.
    length = int(np.gcd.reduce([flat.size, *breaks.tolist()]))
    return Runs(length, flat[::length], bits)


def element_numbers(layout: Layout) -> tuple[Numbers, bool]:
    """Return the number in the buffer of each element of what a layout decodes.

    Returns:
        Numbers of bits, LSB first, or of words of four bytes; and whether they are of bits.
    """
    probe = layout.decode(np.zeros(layout.size, np.uint8))
    if probe.dtype.itemsize == _WORD_BYTES:
        words = np.arange(layout.size // _WORD_BYTES, dtype=np.int32)
        found = np.ascontiguousarray(layout.decode(words.view(np.uint8)))
        return found.view(np.int32).astype(np.int64), False
    if probe.dtype != np.uint8:
        raise ValueError(f"a {layout.kind} layout holds {probe.dtype}")
    every = np.arange(8 * layout.size, dtype=np.int64)
    numbers = np.zeros(probe.shape, np.int64)
    for digit in range(max(1, int(every[-1]).bit_length())):
        plane = np.packbits((every >> digit & 1).astype(np.uint8), bitorder="little")
        numbers |= layout.decode(plane).astype(np.int64) << digit
    return numbers, True
