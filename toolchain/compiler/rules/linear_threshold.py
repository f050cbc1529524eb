"""Binary linear layers that end in bits: `scale * I >= offset + upper`, or beyond the lower one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from vitc.compiler.form import Form
from vitc.compiler.graph import Array, Op, Use, refused
from vitc.compiler.order import Order
from vitc.compiler.plan import Buffer, Operand
from vitc.compiler.rules.linear import Product, ask
from vitc.compiler.rules.rule import Rule
from vitc.targets.isa import Isa
from vitc.targets.kernels.binary_linear import threshold_kernel
from vitc.targets.layouts import Across, Columns, Lanes, Layout, Rows
from vitc.targets.packing import Axis

if TYPE_CHECKING:
    from vitc.compiler.emit import Emission

__all__ = ["LinearThreshold", "Threshold"]

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
            if windows == 1:
                offered.append(Across(order.count, channels))
        return form.layout in offered

    def asks(self, op: Op, form: Form, isa: Isa) -> list[tuple[Use, Form]]:
        """Columns for columns of the positions, rows for all else."""
        return [_ask(op, form, isa)]

    def build(self, op: Op, form: Form, emission: Emission) -> Buffer:
        """One product."""
        whole = emission.isa
        threshold = Threshold(op, form, whole)
        product, outputs, output = threshold.product, threshold.outputs, threshold.output
        two_sided = threshold.two_sided
        operands = [*product.operands(emission), *threshold.constants(emission)]
        group = outputs if threshold.groups > 1 else None
        head = outputs if output == "keys" else None
        shape, transposed, period = product.shape, product.transposed, product.period
        key: tuple[object, ...] = (shape, transposed, two_sided, group, head)
        if product.isa.lanes != whole.lanes:
            key = (*key, product.isa.lanes)
        windows = form.order.windows
        kernel = emission.kernel(
            product.stem(f"threshold_{output}"),
            (*key, windows, period) if windows > 1 or period else key,
            lambda symbol, isa: threshold_kernel(
                symbol,
                product.engine(_isa_of(form, isa)),
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


@dataclass(frozen=True)
class Threshold:
    """A product with thresholds as it is asked for.

    Attributes:
        op: The operator.
        form: In which its bits are written.
        whole: Instruction set of the target.
    """

    op: Op
    form: Form
    whole: Isa

    @property
    def outputs(self) -> Axis:
        """The outputs as they lie."""
        return _outputs(self.form, self.op.output.channels)[0]

    @property
    def output(self) -> Output:
        """How the kernel writes them."""
        return _outputs(self.form, self.op.output.channels)[1]

    @property
    def read(self) -> Form:
        """The form in which it reads its bits."""
        return _ask(self.op, self.form, self.whole)[1]

    @property
    def product(self) -> Product:
        """The product, by the instruction set whose blocks are written."""
        columns, windows = self.output == "columns", self.form.order.windows
        # Tiles of rows would lie in two windows, whose bits are columns of their own.
        grouped = columns and windows > 1 and not _transposed(self.form)
        isa = replace(_isa_of(self.form, self.whole), amx=self.whole.amx and not grouped)
        return Product(self.op, self.read, self.outputs, isa, by_rows=not columns)

    @property
    def two_sided(self) -> bool:
        """Whether it has lower thresholds."""
        return bool(np.any(self.op.constant(5) > -np.inf))

    @property
    def groups(self) -> int:
        """Groups of outputs that have thresholds of their own.

        Raises:
            VitcError: If they are no groups of the outputs as they lie.
        """
        groups: int = max(_matrix(self.op.constant(i)).shape[1] for i in (4, 5))
        if groups not in (1, self.outputs.groups):
            heads = self.outputs.groups
            raise refused(self.op, f"it has {groups} threshold groups over {heads} heads")
        return groups

    def constants(self, emission: Emission) -> list[Operand]:
        """Scale, offset, upper and, if there are any, lower thresholds."""
        product = self.product
        _need_finite(self.op, self.op.constant(2), product.axis.length)
        # A padding output must give bit 0 whatever its threshold: every comparison with NaN is
        # false.
        operands = product.constants(emission, fill=np.nan)
        for index in (4, 5) if self.two_sided else (4,):
            side = _matrix(self.op.constant(index))
            values = np.broadcast_to(side, (product.places, self.groups)).T
            operands.append(product.of_places(values, emission))
        return operands


def _ask(op: Op, form: Form, isa: Isa) -> tuple[Use, Form]:
    """What it reads; rows of a bit of every position only where it writes such rows, too."""
    across = isinstance(form.layout, Across)
    return ask(op, isa, transposed=_transposed(form), across=across)


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
    turned = isinstance(form.layout, Columns | Across)
    return turned and form.order.along == "channels"


def _outputs(form: Form, channels: int) -> tuple[Axis, Output]:
    """The outputs as they lie, and how the kernel writes them."""
    layout = form.layout
    if isinstance(layout, Rows):
        return layout.axis, "rows"
    if isinstance(layout, Across):
        return Axis(channels), "rows"
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
