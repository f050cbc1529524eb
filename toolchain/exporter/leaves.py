"""What an operator is given or makes: values in lists, tuples and mappings, one within the other.

`torch.utils._pytree` does the same for any class that is registered with it, and takes a tenth of
an export for that; operators hand over no other containers than these.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["leaves", "mapped"]


def leaves(given: Any) -> list[Any]:
    """The values, from the first to the last."""
    found: list[Any] = []
    _collect(given, found)
    return found


def _collect(given: Any, found: list[Any]) -> None:
    if isinstance(given, list | tuple):
        for each in given:
            _collect(each, found)
    elif isinstance(given, dict):
        for each in given.values():
            _collect(each, found)
    else:
        found.append(given)


def mapped(function: Callable[[Any], Any], given: Any) -> Any:
    """The same with what the function, called in that order, makes of each value."""
    if isinstance(given, list):
        return [mapped(function, each) for each in given]
    if isinstance(given, tuple):
        return tuple(mapped(function, each) for each in given)
    if isinstance(given, dict):
        return {name: mapped(function, each) for name, each in given.items()}
    return function(given)
