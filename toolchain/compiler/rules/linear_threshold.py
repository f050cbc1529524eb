"""Binary linear layers that end in bits: `scale * I >= offset + upper`, or beyond the lower one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from vitc.compiler.form import Form
from vitc.compiler.graph import Array, Op, Use, refused
from vitc.compiler.order import Order
from vitc.compiler.plan import Buffer
from vitc.compiler.rules.linear import Product, ask
from vitc.compiler.rules.rule import Rule
from vitc.targets.isa import Isa
from vitc.targets.kernels.binary_linear import threshold_kernel
from vitc.targets.layouts import Columns, Lanes, Layout, Rows
from vitc.targets.packing import Axis

if TYPE_CHECKING:
    from vitc.compiler.emit import Emission

__all__ = ["LinearThreshold"]

Output = Literal["rows", "keys", "columns"]


class LinearThreshold(Rule):
    """Inputs are bits, weight, scale [O], offset [O], upper and lower [1|N, 1|G]."""

    def form(self, op: Op, isa: Isa) -> Form:
        """Rows of bits along the outputs."""
        del isa
        whole = Order.whole(op.output.shape)
        return Form(whole, Rows(whole.count, Axis(op.output.channels), whole.windows))

    def offers(self, op: Op, form: Form, isa: Isa) -> bool:
        """Rows, by heads too; keys; values; columns of the positions from columns of the input."""
        order, channels = form.order, op.output.channels
        if not order.in_place or order.together != 1 or order.rows.size != op.output.rows:
            return False
        heads, windows = Axis(channels // order.heads, order.heads), order.windows
        isa = _isa_of(form, isa)
        lanes = (isa.lanes, isa.element_bits)
        offered: list[Layout]
        if order.along == "rows":
            offered = [Columns(heads, order.count, *lanes, windows)]
        else:
            offered = [
                Rows(order.count, heads, windows),
                Lanes(order.count, heads.size, *lanes, windows * order.heads),
            ]
        if order.along == "channels" and order.heads == 1 and _same_windows(op, order):
            offered.append(Columns(Axis(order.count), channels, *lanes, windows))
        return form.layout in offered

    def asks(self, op: Op, form: Form, isa: Isa) -> list[tuple[Use, Form]]:
        """Columns for columns of the positions, rows for all else."""
        return [ask(op, isa, transposed=_transposed(form))]

    def build(self, op: Op, form: Form, emission: Emission) -> Buffer:
        """One product."""
        outputs, output = _outputs(form, op.output.channels)
        whole = emission.isa
        read = ask(op, whole, transposed=_transposed(form))[1]
        windows = form.order.windows
        # Tiles of rows would lie in two windows, whose bits are columns of their own.
        grouped = output == "columns" and windows > 1 and not _transposed(form)
        amx = whole.amx and not grouped
        isa = replace(_isa_of(form, whole), amx=amx)
        product = Product(op, read, outputs, isa, by_rows=output != "columns")
        _need_finite(op, op.constant(2), product.axis.length)
        upper, lower = (_matrix(op.constant(i)) for i in (4, 5))
        two_sided = bool(np.any(lower > -np.inf))
        groups = max(upper.shape[1], lower.shape[1])
        if groups not in (1, outputs.groups):
            raise refused(op, f"it has {groups} threshold groups over {outputs.groups} heads")
        # A padding output must give bit 0 whatever its threshold: every comparison with NaN is
        # false.
        operands = product.affine(emission, fill=np.nan)
        for side in (upper, lower) if two_sided else (upper,):
            values = np.broadcast_to(side, (product.places, groups)).T
            operands.append(product.of_places(values, emission))
        group = outputs if groups > 1 else None
        head = outputs if output == "keys" else None
        shape, transposed, period = product.shape, product.transposed, product.period
        key: tuple[object, ...] = (shape, transposed, two_sided, group, head)
        if product.isa.lanes != whole.lanes:
            key = (*key, product.isa.lanes)
        kernel = emission.kernel(
            product.stem(f"threshold_{output}"),
            (*key, windows, period) if windows > 1 or period else key,
            lambda symbol, isa: threshold_kernel(
                symbol,
                replace(_isa_of(form, isa), amx=amx),
                shape,
                output=output,
                transposed=transposed,
                two_sided=two_sided,
                group=group,
                head=head,
                windows=windows,
                period=period,
            ),
            tuned=product.tuned and _isa_of(form, whole) == whole,
        )
        return emission.step(op, form, kernel, operands, product.cost)


def _isa_of(form: Form, isa: Isa) -> Isa:
    """The instruction set whose blocks a form has."""
    layout = form.layout
    return isa.with_lanes(layout.lanes) if isinstance(layout, Lanes | Columns) else isa


def _same_windows(op: Op, order: Order) -> bool:
    """Whether an order has the windows that the product itself has."""
    shape = op.use(0).shape
    return order.windows == int(np.prod(shape[:-2]))


def _transposed(form: Form) -> bool:
    """Whether positions fill the lanes: bits run along the outputs, and lie side by side."""
    return isinstance(form.layout, Columns) and form.order.along == "channels"


def _outputs(form: Form, channels: int) -> tuple[Axis, Output]:
    """The outputs as they lie, and how the kernel writes them."""
    layout = form.layout
    if isinstance(layout, Rows):
        return layout.axis, "rows"
    if isinstance(layout, Lanes):
        return Axis(layout.length, channels // layout.length), "keys"
    if isinstance(layout, Columns) and not _transposed(form):
        return layout.vectors, "columns"
    return Axis(channels), "columns"


def _need_finite(op: Op, scales: Array, length: int) -> None:
    """Refuse a product that overflows: it would meet the infinity that stands for "never"."""
    with np.errstate(over="ignore"):
        products = np.abs(scales.astype(np.float32)) * np.float32(2 * length)
    if not np.isfinite(products).all():
        raise refused(
            op,
            f"a scale times {length} is beyond fp32: the training diverged, take an earlier "
            "checkpoint",
        )


def _matrix(array: Array) -> Array:
    """Drop the leading axes of length 1 of a constant [.., rows, columns]."""
    return array.reshape(array.shape[-2:])
