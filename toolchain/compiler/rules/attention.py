"""Binary attention: scores, mask of the row's best, mask times signs, threshold: one kernel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vitc.compiler.form import Form
from vitc.compiler.graph import Array, Op, Use, refused
from vitc.compiler.order import Order
from vitc.compiler.plan import Buffer, Cost, Operand
from vitc.compiler.rules.linear import MAX_LENGTH
from vitc.compiler.rules.rule import Rule
from vitc.passes.normal_range import normal_bias, normal_summands
from vitc.targets.isa import Isa
from vitc.targets.kernels.attention import (
    MAX_BYTE_DISTANCE,
    AttentionShape,
    ElasticTables,
    ScoreBias,
    attention_kernel,
    bias_size,
)
from vitc.targets.layouts import Columns, Lanes, Rows
from vitc.targets.packing import ROW_PADDING, Axis, round_up

if TYPE_CHECKING:
    from vitc.compiler.emit import Emission

__all__ = ["Attention"]

_MOST_BIASED_KEYS = 2048
"""Whose scores, in fp32, fit the stack of a thread for a tile of queries."""


class Attention(Rule):
    """Attention of one group of tokens, or of several (windows).

    Inputs are queries [.., h, N, d], keys [.., h, M, d], values [.., h, d, M] and the threshold;
    where scores have a bias (attribute `cut` instead of `slack`), also the bias [h, N, M] and what
    is excluded, bool [1|G, 1, 1|N, 1|M]; where masks are elastic, two tables. A threshold may be
    the sum of two (attribute `summands`), of which the second stands last: one a query, one a
    channel.
    """

    def form(self, op: Op, isa: Isa) -> Form:
        """Rows with the heads side by side."""
        del isa
        size = _Sizes.of(op)
        rows = np.arange(size.windows * size.heads * size.queries)
        matrices = rows.reshape(size.windows, size.heads, size.queries)
        layout = Rows(size.queries, size.head, size.windows)
        return Form(Order(matrices.transpose(0, 2, 1)), layout)

    def asks(self, op: Op, form: Form, isa: Isa) -> list[tuple[Use, Form]]:
        """Queries as rows, keys as lanes, values as columns."""
        del form
        size = _Sizes.of(op)
        isa = isa.filled_by(size.head.padded_group)
        lanes = (isa.lanes, isa.element_bits)
        matrices = size.windows * size.heads
        keys = Lanes(size.keys, size.head.size, *lanes, matrices)
        values = Columns(size.head, size.keys, *lanes, size.windows)
        wanted = (
            ("queries", size.queries, "channels", Rows(size.queries, size.head, size.windows)),
            ("keys", size.keys, "channels", keys),
            ("values", size.keys, "rows", values),
        )
        asks = []
        for i, (name, tokens, along, layout) in enumerate(wanted):
            use = op.use(i)
            order = use.order
            lies = order is not None and order.in_place and order.along == along
            sizes = (size.windows, size.heads, tokens)
            if order is None or not lies or (order.windows, order.heads, order.count) != sizes:
                raise refused(op, f"its {name} are read in an order that no kernel reads")
            asks.append((use, Form(order, layout)))
        return asks

    def build(self, op: Op, form: Form, emission: Emission) -> Buffer:
        """One step, whose tasks are heads of windows and tiles of queries."""
        size, isa = _Sizes.of(op), emission.isa
        head, keys, windows = size.head, size.keys, size.windows
        plain = op.attributes["mask"] == "RowBestMask"
        # No two vectors of bits are further apart than they are long.
        slack = min(op.number("slack"), head.size) if plain else 0
        if keys > MAX_LENGTH:
            raise refused(op, f"{keys} keys are summed, and sums are exact up to {MAX_LENGTH}")
        most = MAX_BYTE_DISTANCE - slack
        if isa.element_bits == 8 and head.size > most:
            raise refused(
                op,
                f"heads of width {head.size} are wider than {most}, the most that {isa.name} "
                "kernels take; use more heads, or compile for x86-avx512",
            )
        bias: ScoreBias | ElasticTables | None = None
        tables: list[Operand] = []
        if op.attributes["mask"] == "BiasedBestMask":
            bias, tables = self._bias(op, size, emission)
        elif not plain:
            bias, tables = self._elastic(op, size, emission)
        summed = op.number("summands") > 1
        shape = AttentionShape(size.queries, keys, head, slack)
        kernel = emission.kernel(
            "attention",
            _key(shape, windows, bias, summed=summed),
            lambda symbol, isa: attention_kernel(
                symbol,
                isa.filled_by(head.padded_group),
                shape,
                windows=windows,
                bias=bias,
                summed=summed,
            ),
            tuned=isa.filled_by(head.padded_group) == isa,
        )
        limits = self._sums(op, size) if summed else [self._threshold(op, size)]
        asks = self.asks(op, form, isa)
        operands = [emission.read(op, use, asked) for use, asked in asks]
        products = 2 * windows * head.length * size.queries * keys
        cost = Cost(binary=products, unit="popcount")
        operands += [*tables, *map(emission.constant, limits)]
        return emission.step(op, form, kernel, operands, cost)

    def _threshold(self, op: Op, size: _Sizes) -> Array:
        """Thresholds of the queries of a window."""
        shape = op.output.shape
        threshold: Array = np.broadcast_to(op.constant(3), (1, *shape))[0]
        places = threshold.reshape(-1, *shape[-2:])[0, :, :1]
        if not np.array_equal(threshold, np.broadcast_to(places, shape)):
            raise refused(
                op, "its threshold differs by head or channel; thresholds must be per token"
            )
        # Beyond keys + 1 a threshold decides nothing more.
        limit = np.zeros(round_up(size.queries, ROW_PADDING), np.int32)
        limit[: size.queries] = np.clip(places[:, 0], -size.keys - 1, size.keys + 1)
        return limit

    def _sums(self, op: Op, size: _Sizes) -> list[Array]:
        """Summands of thresholds: one a query of a window, and one a channel, heads padded."""
        heads, width = size.heads, size.head.size
        summands = [op.constant(3), op.constant(len(op.inputs) - 1)]
        if summands[0].shape[-2:-1] != (size.queries,):
            summands.reverse()
        shapes = (size.queries, 1), (heads, 1, width)
        try:
            rows, columns = (
                np.broadcast_to(each.reshape(each.shape[-len(shape) :]), shape)
                for each, shape in zip(summands, shapes, strict=True)
            )
        except ValueError as error:
            raise refused(
                op, "its threshold is no sum of one number a query and one a channel"
            ) from error
        rows, columns = normal_summands(rows.reshape(-1), columns.reshape(-1))
        if np.isnan(rows).any() or np.isnan(columns).any():
            raise refused(op, "its threshold is not a number")
        padded = np.zeros(round_up(size.queries, ROW_PADDING), np.float32)
        padded[: size.queries] = rows
        return [padded, size.head.pad(columns, 0)]

    def _elastic(
        self, op: Op, size: _Sizes, emission: Emission
    ) -> tuple[ElasticTables, list[Operand]]:
        """The two tables; distances above the nearest are at most as many as a head is wide."""
        terms, least = op.constant(4), op.constant(5)
        if len(terms) != len(least) or len(terms) <= size.head.size:
            raise refused(
                op, f"its tables have {len(terms)} and {len(least)} entries, wanted one for each "
                f"distance from 0 to {size.head.size}"
            )  # fmt: skip
        if (np.diff(least) > 0).any():
            raise refused(op, "its second table rises, and farther keys are attended")
        return ElasticTables(len(terms)), [emission.constant(terms), emission.constant(least)]

    def _bias(self, op: Op, size: _Sizes, emission: Emission) -> tuple[ScoreBias, list[Operand]]:
        """The bias of the scores and its tables, each kind of window once."""
        queries, keys = size.queries, size.keys
        if keys > _MOST_BIASED_KEYS:
            raise refused(
                op,
                f"{keys} keys have scores with a bias, and kernels hold {_MOST_BIASED_KEYS}",
            )
        bias, excluded = normal_bias(op.constant(4)), op.constant(5)
        if np.isnan(bias).any():
            raise refused(op, "its bias is not a number")
        tables: list[Operand] = [emission.constant(_table(bias, queries, keys))]
        cut = float(np.float32(op.attributes["cut"]))
        if not excluded.any():
            return ScoreBias(cut), tables
        shape = (size.windows, 1, queries, keys)
        patterns, kinds = np.unique(
            np.broadcast_to(excluded, shape).reshape(size.windows, -1), axis=0, return_inverse=True
        )
        limits = np.where(patterns, np.float32(-np.inf), np.float32(np.inf)).astype(np.float32)
        tables.append(emission.constant(_table(limits, queries, keys)))
        tables.append(emission.constant(kinds.reshape(-1).astype(np.int32)))
        return ScoreBias(cut, len(patterns)), tables


def _key(
    shape: AttentionShape, windows: int, bias: object, *, summed: bool
) -> tuple[object, ...]:
    """What tells a kernel from others; of the plainest, its geometry alone."""
    if summed:
        return shape, windows, bias, "summed"
    return (shape, windows, bias) if windows > 1 or bias is not None else (shape,)


def _table(array: Array, queries: int, keys: int) -> Array:
    """Matrices [queries, keys] one after the other, and room behind them."""
    table = np.zeros(bias_size(queries, keys, array.size // (queries * keys)), np.float32)
    table[: array.size] = array.reshape(-1)
    return table


@dataclass(frozen=True)
class _Sizes:
    """Sizes of an attention.

    Attributes:
        windows: Groups of tokens.
        queries: Queries of a window.
        keys: Keys of a window.
        head: Heads and their width.
    """

    windows: int
    queries: int
    keys: int
    head: Axis

    @property
    def heads(self) -> int:
        """Heads."""
        return self.head.groups

    @classmethod
    def of(cls, op: Op) -> _Sizes:
        """The sizes of an operator.

        Raises:
            VitcError: If those of its inputs contradict each other.
        """
        shape, keys, values = op.use(0).shape, op.use(1).shape, op.use(2).shape
        inner = (*keys[:-2], *keys[:-3:-1])
        if len(shape) not in (3, 4) or shape[:-2] != keys[:-2] or values != inner:
            raise refused(
                op,
                f"queries of {list(shape)} meet keys of {list(keys)} and values of "
                f"{list(values)}, wanted heads, tokens, width, or the same of windows; and values "
                "by channel",
            )
        *windows, heads, queries, width = shape
        return cls(int(np.prod(windows)), queries, keys[-2], Axis(width, heads))
