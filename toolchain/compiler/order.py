"""Orders: a view is no operator but a table of rows, through which the next kernel reads.

An order makes one array of another: element (w, i, s * C + c) of the result is element (rows[w, i,
s], c) of a value of C channels. So the t rows that rows[w, i] names are read as one. The result may
then be split by heads, [w, heads, i, C / heads], and each of these matrices turned.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

__all__ = ["Order"]

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Order:
    """A table of rows.

    Attributes:
        rows: Numbers of the value's rows, int64 [windows, n, t].
        heads: Groups of channels that are read as matrices of their own.
        along: Whether the last axis of what is read runs along the channels, or along the rows.
    """

    rows: Array
    heads: int = 1
    along: Literal["channels", "rows"] = "channels"

    @classmethod
    def whole(cls, shape: tuple[int, ...]) -> Order:
        """All rows of a value as they lie, the axis before the channels being that of rows."""
        count = int(np.prod(shape[:-1]))
        n = shape[-2] if len(shape) > 1 else 1
        return cls(np.arange(count).reshape(-1, n, 1))

    @classmethod
    def of(cls, elements: Array, channels: int) -> Order | None:
        """Find the order that an array of element numbers is.

        Args:
            elements: Numbers of the elements of a value [rows, channels], 1 axis or more.
            channels: Channels of the value.

        Returns:
            The order, or None if it is none.
        """
        last = elements.shape[-2:] if elements.ndim > 1 else (1, elements.size)
        matrices = elements.reshape(-1, *last)
        return cls._along(matrices, channels, "channels") or cls._along(
            matrices.swapaxes(1, 2), channels, "rows"
        )

    @classmethod
    def _along(
        cls, matrices: Array, channels: int, along: Literal["channels", "rows"]
    ) -> Order | None:
        count, n, length = matrices.shape
        first = matrices[0, 0]
        # As far as the first row of the result runs along channels of one row of the value.
        ends = np.flatnonzero((np.diff(first) != 1) | (first[1:] % channels == 0))
        width = int(ends[0]) + 1 if len(ends) else length
        if length % width or channels % width:
            return None
        runs = matrices.reshape(count, n, length // width, width)
        starts = runs[..., 0]
        if np.any(starts % width) or not np.array_equal(runs, starts[..., None] + np.arange(width)):
            return None
        heads, t = channels // width, length // width
        rows, head = starts // channels, starts % channels // width
        if heads == 1:
            return cls(rows, 1, along)
        if count % heads or t != 1:
            return None
        rows, head = (a.reshape(-1, heads, n, t) for a in (rows, head))
        same = np.array_equal(rows, np.broadcast_to(rows[:, :1], rows.shape))
        if not same or not np.array_equal(head, _heads(head.shape)):
            return None
        return cls(rows[:, 0], heads, along)

    @cached_property
    def in_place(self) -> bool:
        """Whether all rows are read one by one, as they lie."""
        return bool(np.array_equal(self.rows.reshape(-1), np.arange(self.rows.size)))

    @property
    def windows(self) -> int:
        """Groups of rows."""
        return int(self.rows.shape[0])

    @property
    def count(self) -> int:
        """Rows of a window, as they are read."""
        return int(self.rows.shape[1])

    @property
    def together(self) -> int:
        """Rows of the value that are read as one."""
        return int(self.rows.shape[2])

    @property
    def joins_heads(self) -> bool:
        """Whether matrices [windows, t, n] of rows are read as rows of t runs of channels."""
        lying = np.arange(self.rows.size).reshape(self.windows, self.together, self.count)
        return self.heads == 1 and bool(np.array_equal(self.rows, lying.swapaxes(1, 2)))

    @property
    def key(self) -> tuple[object, ...]:
        """What equal orders have in common."""
        return self.rows.shape, self.rows.tobytes(), self.heads, self.along

    def __eq__(self, other: object) -> bool:
        """Whether another order reads the same."""
        return isinstance(other, Order) and self.key == other.key

    def __hash__(self) -> int:
        """Hash of what is read."""
        return hash(self.key)

    def __str__(self) -> str:
        """Sizes, heads and direction, for a dump."""
        sizes = "x".join(map(str, self.rows.shape))
        heads = f" heads {self.heads}" if self.heads > 1 else ""
        return f"{sizes}{heads}{' along rows' if self.along == 'rows' else ''}"


def _heads(shape: tuple[int, ...]) -> Array:
    return np.broadcast_to(np.arange(shape[1])[:, None, None], shape)
