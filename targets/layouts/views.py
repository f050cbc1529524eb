"""Reshapes and transposes, from the array that a buffer holds to the value that a tap names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vitc.targets.layouts.layout import Array

__all__ = ["View", "apply_views", "simplified", "views_from_json"]

View = tuple[str, tuple[int, ...]]
"""`reshape` and a shape, or `transpose` and the order of the axes."""

_KINDS = ("reshape", "transpose")


def apply_views(array: Array, views: Sequence[View]) -> Array:
    """Send an array through views.

    Raises:
        ValueError: If a view does not fit.
    """
    for kind, sizes in views:
        array = array.reshape(sizes) if kind == "reshape" else array.transpose(sizes)
    return array


def simplified(shape: tuple[int, ...], views: Sequence[View]) -> tuple[View, ...]:
    """Views of an array of `shape`, or the one reshape that does the same, or none."""
    indices = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    result = apply_views(indices, views)
    if not np.array_equal(result.reshape(-1), indices.reshape(-1)):
        return tuple(views)
    return () if result.shape == shape else (("reshape", result.shape),)


def views_from_json(values: Any) -> tuple[View, ...]:
    """Read views from a manifest.

    Raises:
        ValueError: If one is unknown or malformed.
    """
    if not isinstance(values, list):
        raise ValueError("views are no list")
    return tuple(_view(value) for value in values)


def _view(value: Any) -> View:
    if not isinstance(value, list) or len(value) != len(_KINDS) or value[0] not in _KINDS:
        raise ValueError(f"{str(value)[:80]} is no view")
    kind, sizes = value
    if not isinstance(sizes, list) or not all(type(s) is int and s >= 0 for s in sizes):
        raise ValueError(f"the sizes of view {str(value)[:80]} are none")
    return kind, tuple(sizes)
