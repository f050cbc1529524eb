"""fp32 values one after the other: what leaves an artefact."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from vitc.targets.layouts.layout import Array, Bytes, Layout, filled

__all__ = ["Plain"]


@dataclass(frozen=True)
class Plain(Layout):
    """fp32 [count].

    Attributes:
        count: Values.
        room: Values that the buffer has room for: a kernel writes whole tiles.
    """

    kind: ClassVar[str] = "plain"

    count: int
    room: int

    @property
    def shape(self) -> tuple[int, ...]:
        """The number of values."""
        return (self.count,)

    @property
    def size(self) -> int:
        """Bytes."""
        return self.room * 4

    def encode(self, array: Array) -> Bytes:
        """Copy values."""
        return filled(array.astype(np.float32).view(np.uint8), self.size)

    def decode(self, data: Bytes) -> Array:
        """Copy values."""
        return data[: self.count * 4].view(np.float32).copy()
