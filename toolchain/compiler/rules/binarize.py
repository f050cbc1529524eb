"""Binarize: floats against thresholds, packed along channels or along rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from vitc.compiler.form import Form, floats_of
from vitc.compiler.graph import Array, Op, Use, refused
from vitc.compiler.order import Order
from vitc.compiler.plan import Buffer, Cost
from vitc.compiler.rules.rule import Rule
from vitc.targets.isa import Isa
from vitc.targets.kernels.binarize import along_columns_kernel, along_rows_kernel
from vitc.targets.layouts import Across, Columns, Floats, Rows
from vitc.targets.packing import Axis, to_rows

if TYPE_CHECKING:
    from vitc.compiler.emit import Emission

__all__ = ["Binarize"]


class Binarize(Rule):
    """`(x >= threshold) XOR flip`; thresholds and flips are constant along the packed axis."""

    again: ClassVar[bool] = True

    def form(self, op: Op, isa: Isa) -> Form:
        """Packed along its last axis."""
        del isa
        whole = Order.whole(op.output.shape)
        return Form(whole, Rows(whole.count, Axis(op.output.channels), whole.windows))

    def offers(self, op: Op, form: Form, isa: Isa) -> bool:
        """Rows in any order, some of them read as one; columns of rows in any order."""
        order, channels = form.order, op.output.channels
        if order.heads != 1:
            return False
        if order.along == "rows":
            columns = Columns(
                Axis(channels), order.count, isa.lanes, isa.element_bits, order.windows
            )
            across = Across(channels, order.count)
            whole = order.windows == 1 and form.layout == across
            return order.together == 1 and (form.layout == columns or whole)
        axis = Axis(channels, order.together)
        return form.layout == Rows(order.count, axis, order.windows)

    def unread(self, op: Op) -> list[int]:
        """Floats whose rows are not read one by one."""
        order = op.use(0).order
        plain = order is not None and order.heads == order.together == 1
        return [] if plain and order is not None and order.along == "channels" else [0]

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
        use, written, isa = op.use(0), form.order.rows, emission.isa
        limits, flips = self._matrix(op, 1), self._matrix(op, 2).astype(bool)
        read = floats_of(use.value)
        assert isinstance(read.layout, Floats)  # noqa: S101 - floats_of says so
        columns, stride = read.layout.columns, read.layout.stride
        # Number of the row of floats that each row of bits is made of.
        source = np.arange(use.value.rows) if use.order is None else use.order.rows.reshape(-1)
        order = source[written.reshape(-1)].astype(np.int32)
        in_place = np.array_equal(order, np.arange(len(order)))
        operands = [emission.read(op, use, read)]
        if not in_place:
            operands.append(emission.constant(order))
        key: tuple[object, ...]
        if isinstance(form.layout, Rows):
            _need_constant_along(op, (limits, flips), 1)
            threshold = limits[written.reshape(-1), 0].astype(np.float32)
            flip = np.where(flips[written.reshape(-1), 0], 0xFFFF, 0).astype(np.uint16)
            key = (len(order), columns, stride)
            kernel = emission.kernel(
                "binarize",
                key if in_place else (*key, "ordered"),
                lambda symbol, _: along_rows_kernel(
                    symbol, len(order), columns, stride, ordered=not in_place
                ),
                tuned=False,
            )
        elif isinstance(form.layout, Across):
            _need_constant_along(op, (limits, flips), 0)
            threshold = np.zeros(stride, np.float32)
            threshold[:columns] = limits[0]
            flip = to_rows(flips[:1].astype(np.uint8), Axis(columns)).view(np.uint16)
            key = (len(order), columns, stride, "by column", not in_place)
            kernel = emission.kernel(
                "binarize_across",
                key,
                lambda symbol, _: along_rows_kernel(
                    symbol, len(order), columns, stride, ordered=not in_place, by_column=True
                ),
                tuned=False,
            )
        else:
            _need_constant_along(op, (limits, flips), 0)
            threshold = np.zeros(stride, np.float32)
            threshold[:columns] = limits[0]
            flip = np.zeros(stride, isa.element)
            flip[:columns] = np.where(flips[0], (1 << isa.element_bits) - 1, 0)
            groups, rows = form.order.windows, form.order.count
            key = (rows, stride)
            kernel = emission.kernel(
                "binarize_columns",
                key if in_place and groups == 1 else (*key, groups, not in_place),
                lambda symbol, isa: along_columns_kernel(
                    symbol, isa, rows, stride, stride, groups=groups, ordered=not in_place
                ),
                tuned=False,
            )
        operands += [emission.constant(threshold), emission.constant(flip)]
        return emission.step(op, form, kernel, operands, Cost())

    def _matrix(self, op: Op, index: int) -> Array:
        """A constant as a matrix [rows, channels] of the bits."""
        shape = op.output.shape
        constant: Array = np.broadcast_to(op.constant(index), (1, *shape))[0]
        return constant.reshape(-1, shape[-1])


def _need_constant_along(op: Op, arrays: tuple[Array, ...], axis: int) -> None:
    for array in arrays:
        if not np.array_equal(array, np.broadcast_to(array.take([0], axis), array.shape)):
            raise refused(
                op,
                "its threshold differs along the packed axis; thresholds must be per token, or per "
                "channel where tokens are packed",
            )
