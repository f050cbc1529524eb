"""Binary linear layers that are added to floats: `residual + gain * (scale * I + bias)`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vitc.compiler.form import Form, floats_of
from vitc.compiler.graph import WRITTEN, Array, Op, Use, refused
from vitc.compiler.order import Order
from vitc.compiler.plan import Buffer
from vitc.compiler.rules.linear import Product, ask
from vitc.compiler.rules.rule import Rule
from vitc.targets.isa import Isa
from vitc.targets.kernels.binary_linear import residual_kernel
from vitc.targets.layouts import Floats
from vitc.targets.packing import ROW_PADDING, Axis, round_up

if TYPE_CHECKING:
    from vitc.compiler.emit import Emission

__all__ = ["LinearResidual"]

_RESIDUAL = 5


class LinearResidual(Rule):
    """Inputs are bits, weight, scale [O], bias [O], gain [1|N, 1] and the residual.

    Rows of the product may be added to rows of the residual in an order of theirs, which phase
    `orders` writes down; then floats are read and written through it.
    """

    def unread(self, op: Op) -> list[int]:
        """A residual that is not as it lies."""
        return [] if op.use(_RESIDUAL).whole else [_RESIDUAL]

    def asks(self, op: Op, form: Form, isa: Isa) -> list[tuple[Use, Form]]:
        """Rows, or columns where the product is turned as it is written; and the residual."""
        del form
        residual = op.use(_RESIDUAL)
        if self.unread(op):
            raise refused(op, "it adds to floats in an order that no kernel reads")
        bits = ask(op, isa, transposed=_transposed(op))
        return [bits, (residual, floats_of(residual.value))]

    def build(self, op: Op, form: Form, emission: Emission) -> Buffer:
        """One product."""
        (_, read), (residual, floats) = self.asks(op, form, emission.isa)
        product = Product(op, read, Axis(len(op.constant(2))), emission.isa)
        gains = op.constant(4).reshape(-1)
        has_gain = not bool(np.all(gains == 1))
        operands = product.affine(emission)
        if has_gain:
            expanded = np.broadcast_to(gains, (1, product.places))
            operands.append(product.of_places(expanded, emission))
        order = op.attributes.get(WRITTEN)
        if order is not None:
            operands.append(emission.constant(_padded(order)))
        operands.append(emission.read(op, residual, floats))
        assert isinstance(form.layout, Floats)  # noqa: S101 - it offers no other
        shape, transposed, stride = product.shape, product.transposed, form.layout.stride
        windows, period, ordered = product.windows, product.period, order is not None
        key: tuple[object, ...] = (shape, transposed, has_gain)
        kernel = emission.kernel(
            product.stem("residual"),
            (*key, windows, period, ordered) if period or ordered else key,
            lambda symbol, isa: residual_kernel(
                symbol,
                product.engine(isa),
                shape,
                transposed=transposed,
                gain=has_gain,
                stride=stride,
                windows=windows,
                period=period,
                ordered=ordered,
            ),
            tuned=product.tuned,
        )
        return emission.step(op, form, kernel, operands, product.cost, adds_to=operands[-1])


def _padded(order: Order) -> Array:
    """The rows of an order, and numbers of rows behind the last, which tiles run over."""
    rows = order.rows.reshape(-1)
    more = np.arange(len(rows), round_up(len(rows), ROW_PADDING))
    return np.concatenate([rows, more]).astype(np.int32)


def _transposed(op: Op) -> bool:
    return bool(op.number("transposed"))
