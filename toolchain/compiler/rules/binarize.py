"""Binarize: floats against thresholds, packed along channels or along rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vitc.compiler.form import Form, floats_of
from vitc.compiler.graph import Array, Op, Use, refused
from vitc.compiler.order import Order
from vitc.compiler.plan import Buffer, Cost
from vitc.compiler.rules.rule import Rule
from vitc.targets.isa import Isa
from vitc.targets.kernels.binarize import along_columns_kernel, along_rows_kernel
from vitc.targets.layouts import Columns, Floats, Rows
from vitc.targets.packing import Axis

if TYPE_CHECKING:
    from vitc.compiler.emit import Emission

__all__ = ["Binarize"]


class Binarize(Rule):
    """`(x >= threshold) XOR flip`; thresholds and flips are constant along the packed axis."""

    def form(self, op: Op, isa: Isa) -> Form:
        """Packed along channels of what it reads."""
        value = op.use(0).value
        whole = Order.whole(op.output.shape)
        if _turned(op):
            return Form(whole, _columns(value.rows, value.channels, isa))
        return Form(whole, Rows(whole.count, Axis(value.channels), whole.windows))

    def offers(self, op: Op, form: Form, isa: Isa) -> bool:
        """Along the last axis of its value; along the rows too, if it reads floats as they lie."""
        if form == self.form(op, isa):
            return True
        value, order = op.use(0).value, form.order
        turned = order.in_place and order.along == "rows" and order.heads == order.together == 1
        columns = _columns(value.rows, value.channels, isa)
        return not _turned(op) and turned and order.windows == 1 and form.layout == columns

    def unread(self, op: Op) -> list[int]:
        """Floats that are not all there, or not in place."""
        order = op.use(0).order
        if order is None or not order.in_place or order.heads != 1 or order.together != 1:
            return [0]
        whole = order.rows.size == op.use(0).value.rows
        return [] if whole and (order.along == "channels" or order.windows == 1) else [0]

    def asks(self, op: Op, form: Form, isa: Isa) -> list[tuple[Use, Form]]:
        """Floats as they lie."""
        del form, isa
        use = op.use(0)
        if use.value.kind != "float":
            raise refused(op, f"it reads {use.value.kind}, and floats are binarized")
        if self.unread(op):
            raise refused(op, "it reads floats in an order that no kernel reads")
        return [(use, floats_of(use.value))]

    def build(self, op: Op, form: Form, emission: Emission) -> Buffer:
        """One step: rows packed one by one, or columns."""
        use = op.use(0)
        limits, flips = self._matrix(op, 1), self._matrix(op, 2).astype(bool)
        read = floats_of(use.value)
        assert isinstance(read.layout, Floats)  # noqa: S101 - floats_of says so
        rows, columns, stride = read.layout.rows, read.layout.columns, read.layout.stride
        isa = emission.isa
        if isinstance(form.layout, Rows):
            _need_constant_along(op, (limits, flips), 1)
            threshold = limits[:, 0].astype(np.float32)
            flip = np.where(flips[:, 0], 0xFFFF, 0).astype(np.uint16)
            kernel = emission.kernel(
                "binarize",
                (rows, columns, stride),
                lambda symbol, _: along_rows_kernel(symbol, rows, columns, stride),
                tuned=False,
            )
        else:
            _need_constant_along(op, (limits, flips), 0)
            threshold = np.zeros(stride, np.float32)
            threshold[:columns] = limits[0]
            flip = np.zeros(stride, isa.element)
            flip[:columns] = np.where(flips[0], (1 << isa.element_bits) - 1, 0)
            kernel = emission.kernel(
                "binarize_columns",
                (rows, stride),
                lambda symbol, isa: along_columns_kernel(symbol, isa, rows, stride, stride),
                tuned=False,
            )
        operands = [
            emission.read(op, use, read),
            emission.constant(threshold),
            emission.constant(flip),
        ]
        return emission.step(op, form, kernel, operands, Cost())

    def _matrix(self, op: Op, index: int) -> Array:
        """A constant as a matrix [rows, channels] of the floats that are read."""
        value = op.use(0).value
        constant: Array = np.broadcast_to(op.constant(index), (1, *op.output.shape))[0]
        if _turned(op):
            return constant.reshape(value.channels, value.rows).T
        return constant.reshape(value.rows, value.channels)


def _turned(op: Op) -> bool:
    """Whether floats are read along their rows."""
    order = op.use(0).order
    return order is not None and order.along == "rows"


def _columns(rows: int, channels: int, isa: Isa) -> Columns:
    return Columns(Axis(channels), rows, isa.lanes, isa.element_bits)


def _need_constant_along(op: Op, arrays: tuple[Array, ...], axis: int) -> None:
    for array in arrays:
        if not np.array_equal(array, np.broadcast_to(array.take([0], axis), array.shape)):
            raise refused(
                op,
                "its threshold differs along the packed axis; thresholds must be per token, or per "
                "channel where tokens are packed",
            )
