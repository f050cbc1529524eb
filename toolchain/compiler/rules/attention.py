"""Binary attention: scores, mask of the row's best, mask times signs, threshold: one kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vitc.compiler.form import Form
from vitc.compiler.graph import Array, Op, Use, refused
from vitc.compiler.order import Order
from vitc.compiler.plan import Buffer, Cost
from vitc.compiler.rules.linear import MAX_LENGTH
from vitc.compiler.rules.rule import Rule
from vitc.targets.isa import Isa
from vitc.targets.kernels.attention import MAX_BYTE_DISTANCE, AttentionShape, attention_kernel
from vitc.targets.layouts import Columns, Lanes, Rows
from vitc.targets.packing import ROW_PADDING, Axis, round_up

if TYPE_CHECKING:
    from vitc.compiler.emit import Emission

__all__ = ["Attention"]


class Attention(Rule):
    """Inputs are queries [h, N, d], keys [h, M, d], values [h, d, M] and the threshold."""

    def form(self, op: Op, isa: Isa) -> Form:
        """Rows with the heads side by side."""
        del isa
        heads, queries, _, size = _sizes(op)
        rows = np.arange(heads * queries).reshape(heads, queries, 1)
        return Form(Order(rows.transpose(2, 1, 0)), Rows(queries, Axis(size, heads)))

    def asks(self, op: Op, form: Form, isa: Isa) -> list[tuple[Use, Form]]:
        """Queries as rows, keys as lanes, values as columns."""
        del form
        heads, queries, keys, size = _sizes(op)
        lanes = (isa.lanes, isa.element_bits)
        wanted = (
            ("queries", queries, "channels", Rows(queries, Axis(size, heads))),
            ("keys", keys, "channels", Lanes(keys, size, *lanes, heads)),
            ("values", keys, "rows", Columns(Axis(size, heads), keys, *lanes)),
        )
        asks = []
        for i, (name, tokens, along, layout) in enumerate(wanted):
            use = op.use(i)
            order = use.order
            lies = order is not None and order.in_place and order.along == along
            if order is None or not lies or (order.heads, order.count) != (heads, tokens):
                raise refused(op, f"its {name} are read in an order that no kernel reads")
            asks.append((use, Form(order, layout)))
        return asks

    def build(self, op: Op, form: Form, emission: Emission) -> Buffer:
        """One step, whose tasks are heads and tiles of queries."""
        heads, queries, keys, size = _sizes(op)
        head, isa = Axis(size, heads), emission.isa
        slack = min(op.number("slack"), size)  # No two vectors of bits are further apart.
        if keys > MAX_LENGTH:
            raise refused(op, f"{keys} keys are summed, and sums are exact up to {MAX_LENGTH}")
        most = MAX_BYTE_DISTANCE - slack
        if isa.element_bits == 8 and head.size > most:
            raise refused(
                op,
                f"heads of width {head.size} are wider than {most}, the most that {isa.name} "
                "kernels take; use more heads, or compile for x86-avx512",
            )
        shape = AttentionShape(queries, keys, head, slack)
        kernel = emission.kernel(
            "attention", (shape,), lambda symbol, isa: attention_kernel(symbol, isa, shape)
        )
        # Beyond keys + 1 a threshold decides nothing more.
        limit = np.zeros(round_up(queries, ROW_PADDING), np.int32)
        limit[:queries] = np.clip(self._threshold(op), -keys - 1, keys + 1)
        asks = self.asks(op, form, isa)
        operands = [emission.read(op, use, asked) for use, asked in asks]
        cost = Cost(binary=2 * heads * queries * keys * size, unit="popcount")
        return emission.step(op, form, kernel, [*operands, emission.constant(limit)], cost)

    def _threshold(self, op: Op) -> Array:
        """Thresholds of the queries."""
        shape = op.output.shape
        threshold: Array = np.broadcast_to(op.constant(3), (1, *shape))[0]
        if not np.array_equal(threshold, np.broadcast_to(threshold[:1, :, :1], shape)):
            raise refused(
                op, "its threshold differs by head or channel; thresholds must be per token"
            )
        return threshold[0, :, 0]


def _sizes(op: Op) -> tuple[int, int, int, int]:
    """Heads, queries, keys, and width of a head."""
    shape, keys, values = op.use(0).shape, op.use(1).shape, op.use(2).shape
    if len(shape) != len(keys) or len(shape) != 3 or values[1:] != keys[:0:-1]:
        raise refused(
            op,
            f"queries of {list(shape)} meet keys of {list(keys)} and values of {list(values)}, "
            "wanted heads, tokens, width; and values by channel",
        )
    return shape[0], shape[1], keys[1], shape[2]
