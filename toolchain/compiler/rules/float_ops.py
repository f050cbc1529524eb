"""Float operators that TVM computes, by way of Relax."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vitc.compiler.form import Form, floats_of
from vitc.compiler.graph import Op, Use, refused
from vitc.compiler.order import Order
from vitc.compiler.plan import Buffer
from vitc.compiler.rules.rule import Rule
from vitc.targets.isa import Isa
from vitc.targets.layouts import Plain

if TYPE_CHECKING:
    from vitc.compiler.emit import Emission

__all__ = ["FloatOps"]


class FloatOps(Rule):
    """An operator of `vitc.compiler.relax_ops`."""

    def form(self, op: Op, isa: Isa) -> Form:
        """Plain values, where no kernel reads them: they leave the artefact."""
        del isa
        count = op.output.rows * op.output.channels
        return Form(Order.whole(op.output.shape), Plain(count, count))

    def offers(self, op: Op, form: Form, isa: Isa) -> bool:
        """Floats, besides."""
        return form in (floats_of(op.output), self.form(op, isa))

    def asks(self, op: Op, form: Form, isa: Isa) -> list[tuple[Use, Form]]:
        """Floats, in any order: it is read through."""
        del form, isa
        for use in op.uses:
            if use.value.kind != "float":
                raise refused(op, f"it reads {use.value.kind}, and is computed on floats only")
        return [(use, floats_of(use.value)) for use in op.uses]

    def build(self, op: Op, form: Form, emission: Emission) -> Buffer:
        """Leave it to the Relax function of the entry."""
        return emission.defer(op, form)
