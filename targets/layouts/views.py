"""Views: reshapes, transposes and picks, which move elements and compute nothing.

A tap's views lead from the array that a buffer holds to the value that the tap names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vitc.targets.layouts.layout import Array

__all__ = ["View", "apply_views", "simplified", "viewed_shape", "views_from_json"]

View = tuple[str, tuple[int, ...]]
"""`reshape` and a shape; `transpose` and the order of axes; `take`, an axis and what is taken."""

_PARTS = 2
_KINDS = ("reshape", "transpose", "take")


def apply_views(array: Array, views: Sequence[View]) -> Array:
    """Send an array through views.

    Raises:
        ValueError: If a view does not fit.
        IndexError: If something is taken that is not there.
    """
    for kind, numbers in views:
        if kind == "take":
            array = array.take(numbers[1:], numbers[0])
        else:
            array = array.reshape(numbers) if kind == "reshape" else array.transpose(numbers)
    return array


def viewed_shape(shape: tuple[int, ...], views: Sequence[View]) -> tuple[int, ...]:
    """Shape of an array of `shape` after views that fit it."""
    for kind, numbers in views:
        if kind == "take":
            axis, *taken = numbers
            shape = (*shape[:axis], len(taken), *shape[axis + 1 :])
        else:
            shape = numbers if kind == "reshape" else tuple(shape[axis] for axis in numbers)
    return shape


def simplified(shape: tuple[int, ...], views: Sequence[View]) -> tuple[View, ...]:
    """Fewer views that do the same to an array of `shape`: one reshape, or none, if they can."""
    indices = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    result = apply_views(indices, views)
    if np.array_equal(result.reshape(-1), indices.reshape(-1)):
        return () if result.shape == shape else (("reshape", result.shape),)
    fewer: list[View] = []
    for kind, numbers in views:
        if fewer and fewer[-1][0] == kind == "reshape":
            fewer[-1] = (kind, numbers)
        elif fewer and fewer[-1][0] == kind == "transpose":
            fewer[-1] = (kind, tuple(fewer[-1][1][axis] for axis in numbers))
        else:
            fewer.append((kind, numbers))
    return tuple(fewer)


def views_from_json(values: Any) -> tuple[View, ...]:
    """Read views from a manifest.

    Raises:
        ValueError: If one is unknown or malformed.
    """
    if not isinstance(values, list):
        raise ValueError("views are no list")
    return tuple(_view(value) for value in values)


def _view(value: Any) -> View:
    if not isinstance(value, list) or len(value) != _PARTS or value[0] not in _KINDS:
        raise ValueError(f"{str(value)[:80]} is no view")
    kind, sizes = value
    if not isinstance(sizes, list) or not all(type(s) is int and s >= 0 for s in sizes):
        raise ValueError(f"the sizes of view {str(value)[:80]} are none")
    return kind, tuple(sizes)
