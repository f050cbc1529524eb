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
    """Inputs are queries [h, N, d], keys [h, N, d], values [h, d, N] and the threshold."""

    def form(self, op: Op, isa: Isa) -> Form:
        """Rows with the heads side by side."""
        del isa
        heads, tokens, size = _sizes(op)
        rows = np.arange(heads * tokens).reshape(heads, tokens, 1)
        return Form(Order(rows.transpose(2, 1, 0)), Rows(tokens, Axis(size, heads)))

    def asks(self, op: Op, form: Form, isa: Isa) -> list[tuple[Use, Form]]:
        """Queries as rows, keys as lanes, values as columns."""
        del form
        heads, tokens, size = _sizes(op)
        lanes = (isa.lanes, isa.element_bits)
        wanted = (
            ("queries", "channels", Rows(tokens, Axis(size, heads))),
            ("keys", "channels", Lanes(tokens, size, *lanes, heads)),
            ("values", "rows", Columns(Axis(size, heads), tokens, *lanes)),
        )
        asks = []
        for i, (name, along, layout) in enumerate(wanted):
            use = op.use(i)
            order = use.order
            lies = order is not None and order.in_place and order.along == along
            if order is None or not lies or (order.heads, order.count) != (heads, tokens):
                raise refused(op, f"its {name} are read in an order that no kernel reads")
            asks.append((use, Form(order, layout)))
        return asks

    def build(self, op: Op, form: Form, emission: Emission) -> Buffer:
        """One step, whose tasks are heads and tiles of queries."""
        heads, tokens, size = _sizes(op)
        head, slack, isa = Axis(size, heads), op.number("slack"), emission.isa
        if tokens > MAX_LENGTH:
            raise refused(op, f"{tokens} keys are summed, and sums are exact up to {MAX_LENGTH}")
        most = MAX_BYTE_DISTANCE - slack
        if isa.element_bits == 8 and head.size > most:
            raise refused(
                op,
                f"heads of width {head.size} are wider than {most}, the most that {isa.name} "
                "kernels take; use more heads, or compile for x86-avx512",
            )
        shape = AttentionShape(tokens, head, slack)
        kernel = emission.kernel(
            "attention", (shape,), lambda symbol, isa: attention_kernel(symbol, isa, shape)
        )
        # Beyond tokens + 1 a threshold decides nothing more.
        limit = np.zeros(round_up(tokens, ROW_PADDING), np.int32)
        limit[:tokens] = np.clip(self._threshold(op), -tokens - 1, tokens + 1)
        asks = self.asks(op, form, isa)
        operands = [emission.read(op, use, asked) for use, asked in asks]
        cost = Cost(binary=2 * heads * tokens * tokens * size, unit="popcount")
        return emission.step(op, form, kernel, [*operands, emission.constant(limit)], cost)

    def _threshold(self, op: Op) -> Array:
        """Thresholds of the tokens."""
        shape = op.output.shape
        threshold: Array = np.broadcast_to(op.constant(3), (1, *shape))[0]
        if not np.array_equal(threshold, np.broadcast_to(threshold[:1, :, :1], shape)):
            raise refused(
                op, "its threshold differs by head or channel; thresholds must be per token"
            )
        return threshold[0, :, 0]


def _sizes(op: Op) -> tuple[int, int, int]:
    """Heads, tokens and width of a head."""
    shape, keys = op.output.shape, op.use(1).shape
    if len(shape) != 3 or keys != shape:
        raise refused(
            op, f"{list(keys)} keys for {list(shape)} queries, wanted heads, tokens, width of both"
        )
    heads, tokens, size = shape
    return heads, tokens, size
