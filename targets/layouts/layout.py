"""What every memory layout of a buffer offers, and how the manifest writes one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, ClassVar, get_type_hints

import numpy as np
import numpy.typing as npt

from vitc.targets.packing import Axis

__all__ = ["Array", "Bytes", "Layout", "filled"]

Array = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]

_MOST = 1 << 31
"""A manifest may state what it likes."""


class Layout(ABC):
    """How a buffer holds an array. Layouts are frozen dataclasses of sizes: integers, and axes."""

    kind: ClassVar[str]
    """Name in the manifest."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Bytes of the buffer, its padding included."""

    @abstractmethod
    def encode(self, array: Array) -> Bytes:
        """Return the buffer that holds an array of `shape`; its padding is zero."""

    @abstractmethod
    def decode(self, data: Bytes) -> Array:
        """Return the array that a buffer holds, whatever its padding holds."""

    def to_dict(self) -> dict[str, Any]:
        """JSON values: the kind, and the fields; an axis is a dictionary of its own."""
        return {"kind": self.kind, **asdict(self)}  # type: ignore[call-overload]

    @classmethod
    def from_fields(cls, values: Mapping[str, Any]) -> Layout:
        """The inverse of `to_dict`, without the kind.

        Raises:
            ValueError: If a field is missing or unknown, or is no size.
        """
        kinds = get_type_hints(cls)
        names = {field.name for field in fields(cls)}  # type: ignore[arg-type]
        if set(values) != names:
            raise ValueError(f"it has {sorted(values)} instead of {sorted(names)}")
        return cls(**{name: _field(kinds[name], name, values[name]) for name in names})

    def __str__(self) -> str:
        """Kind and shape, for a reader."""
        return f"{type(self).__name__} {' x '.join(map(str, self.shape))}"


def filled(data: Bytes, size: int) -> Bytes:
    """Return bytes with zeros behind them."""
    flat = data.reshape(-1)
    return np.pad(flat, (0, size - flat.size))


def _field(kind: object, name: str, value: object) -> Any:
    if kind is not Axis:
        return _size(name, value)
    if not isinstance(value, dict) or set(value) != {"size", "groups"}:
        raise ValueError(f"{name} is no axis")
    return Axis(**{key: _size(key, size) for key, size in value.items()})


def _size(name: str, value: object) -> int:
    if type(value) is not int or not 0 < value < _MOST:
        raise ValueError(f"{name} is no size")
    return value
