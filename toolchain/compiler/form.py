"""Forms: how a buffer holds a value, as its readers ask for it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vitc.compiler.graph import Value
from vitc.compiler.order import Order
from vitc.targets.layouts import Codes, Floats, Layout, Plain, Rows
from vitc.targets.layouts.views import View
from vitc.targets.packing import WORD, round_up

__all__ = ["Form", "codes_of", "floats_of"]


@dataclass(frozen=True)
class Form:
    """A value in memory: what `order` reads of it, as `layout` holds that.

    Attributes:
        order: Of the value.
        layout: Of the buffer.
    """

    order: Order
    layout: Layout

    def back(self, shape: tuple[int, ...]) -> tuple[View, ...] | None:
        """Views to the value from what the layout decodes.

        Args:
            shape: Of the value.

        Returns:
            The views; None if there are none, as where not all rows are held.
        """
        order, channels = self.order, shape[-1]
        if order.joins_heads and order.together > 1:
            heads: View = ("reshape", (order.windows, order.count, order.together, channels))
            return (heads, ("transpose", (0, 2, 1, 3)), ("reshape", shape))
        if not order.in_place or order.together > 1:
            return self._back_from_order(shape)
        if isinstance(self.layout, Rows | Plain):
            return (("reshape", shape),)
        return (*self._rows(channels), ("reshape", shape))

    def _rows(self, channels: int) -> tuple[View, View]:
        """Views to rows from heads, or from columns, which are matrices of their own."""
        order, along_rows = self.order, self.order.along == "rows"
        matrix = (order.count, channels // order.heads)
        sizes = (order.windows, order.heads, *(matrix[::-1] if along_rows else matrix))
        return ("reshape", sizes), ("transpose", (0, 3, 1, 2) if along_rows else (0, 2, 1, 3))

    def _back_from_order(self, shape: tuple[int, ...]) -> tuple[View, ...] | None:
        """Views that put rows back to their places."""
        order, channels = self.order, shape[-1]
        held, first = np.unique(order.rows, return_index=True)
        if not np.array_equal(held, np.arange(int(np.prod(shape[:-1])))):
            return None
        rows = () if isinstance(self.layout, Rows) else self._rows(channels)
        back: View = ("take", (0, *(int(i) for i in first)))
        return (*rows, ("reshape", (order.rows.size, channels)), back, ("reshape", shape))

    def __str__(self) -> str:
        """Layout, and order where it says more than the layout."""
        turned = " along rows" if self.order.along == "rows" else ""
        return f"{self.layout}{turned}"


def codes_of(value: Value) -> Form:
    """The form of codes: rows of channels, without gaps."""
    return Form(Order.whole(value.shape), Codes(value.rows, value.channels))


def floats_of(value: Value) -> Form:
    """The form of every float: rows of channels, each beginning a word of bits."""
    layout = Floats(value.rows, value.channels, round_up(value.channels, WORD))
    return Form(Order.whole(value.shape), layout)
