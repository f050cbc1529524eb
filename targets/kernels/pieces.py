"""Vectors that cover a length which none of them divides, and one number of what they sum up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from vitc.targets.kernels.emitter import Emitter

__all__ = ["folded", "pieces"]


def pieces(e: Emitter, length: int, widest: int) -> Iterator[tuple[Any, int]]:
    """Places and widths of vectors that cover a length: whole ones, shorter ones behind.

    Args:
        e: Emitter.
        length: Elements.
        widest: Elements of a whole vector.

    Yields:
        A context that gives the place of the first element, once, and the width.
    """
    whole = length // widest
    if whole > 1:
        yield _steps(e, whole, widest), widest
    elif whole:
        yield _at(0), widest
    at, width = whole * widest, widest
    while at < length:
        width = min(1 << (length - at).bit_length() - 1, width)
        yield _at(at), width
        at += width


def folded(e: Emitter, sums: Mapping[int, Any], combine: Callable[[Any, Any], Any]) -> Any:
    """One number of the lanes of vectors whose widths are powers of two.

    Args:
        e: Emitter.
        sums: Local array of each width.
        combine: Of two vectors.
    """
    width = max(sums)
    total = e.let(e.load(sums[width], 0, width))
    while width > 1:
        width //= 2
        low, high = (_lanes(total, range(first, first + width)) for first in (0, width))
        total = e.let(combine(low, high))
        if width in sums:
            total = e.let(combine(total, e.load(sums[width], 0, width)))
    return total


def _lanes(vector: Any, places: range) -> Any:
    """Some lanes of a vector."""
    return tirx.Shuffle([vector], [T.int32(place) for place in places])


class _at:  # noqa: N801 - a context, like a loop of one turn
    """One place, where a loop would give several."""

    def __init__(self, place: int) -> None:
        self._place = place

    def __enter__(self) -> Any:
        return T.int32(self._place)

    def __exit__(self, *_: object) -> None:
        pass


class _steps:  # noqa: N801 - a context, like a loop
    """A loop over chunks, which gives the first lane of each."""

    def __init__(self, emitter: Emitter, count: int, width: int) -> None:
        self._emitter, self._loop, self._width = emitter, emitter.loop(0, count), width

    def __enter__(self) -> Any:
        return self._emitter.let(self._loop.__enter__() * self._width)

    def __exit__(self, *args: object) -> None:
        self._loop.__exit__(*args)
