"""Binary linear layers whose integers meet a float operator: `scale * I + bias`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vitc.compiler.form import Form
from vitc.compiler.graph import Op, Use
from vitc.compiler.plan import Buffer
from vitc.compiler.rules.linear import Product, ask
from vitc.compiler.rules.rule import Rule
from vitc.targets.isa import Isa
from vitc.targets.kernels.binary_linear import float_kernel
from vitc.targets.layouts import Floats
from vitc.targets.packing import Axis

if TYPE_CHECKING:
    from vitc.compiler.emit import Emission

__all__ = ["LinearFloat"]


class LinearFloat(Rule):
    """Inputs are bits, weight, scale [O] and bias [O]."""

    def asks(self, op: Op, form: Form, isa: Isa) -> list[tuple[Use, Form]]:
        """Rows of bits."""
        del form
        return [ask(op, isa, transposed=False)]

    def build(self, op: Op, form: Form, emission: Emission) -> Buffer:
        """One product."""
        ((_, read),) = self.asks(op, form, emission.isa)
        product = Product(op, read, Axis(len(op.constant(2))), emission.isa)
        assert isinstance(form.layout, Floats)  # noqa: S101 - it offers no other
        shape, stride = product.shape, form.layout.stride
        kernel = emission.kernel(
            product.stem("linear_float"),
            (shape,),
            lambda symbol, isa: float_kernel(
                symbol, product.engine(isa), shape, stride=stride
            ),
            tuned=product.tuned,
        )
        return emission.step(op, form, kernel, product.affine(emission), product.cost)
