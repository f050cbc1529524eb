"""QuantizeLinear: floats to codes, which a product of integers reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vitc.compiler.form import Form, codes_of, floats_of
from vitc.compiler.graph import Op, Use, refused
from vitc.compiler.plan import Buffer, Cost
from vitc.compiler.rules.rule import Rule
from vitc.targets.isa import Isa
from vitc.targets.kernels.quantize import QuantizeShape, quantize_kernel
from vitc.targets.layouts import Floats

if TYPE_CHECKING:
    from vitc.compiler.emit import Emission

__all__ = ["Quantize"]


class Quantize(Rule):
    """`clamp(round(x / scale) + zero, 0, 255)` of x; scale and zero are a number each."""

    def form(self, op: Op, isa: Isa) -> Form:
        """Codes."""
        del isa
        return codes_of(op.output)

    def unread(self, op: Op) -> list[int]:
        """All that is not read as it lies."""
        return [] if op.use(0).whole else [0]

    def asks(self, op: Op, form: Form, isa: Isa) -> list[tuple[Use, Form]]:
        """Floats."""
        del form, isa
        use = op.use(0)
        if use.value.kind != "float":
            raise refused(op, f"it reads {use.value.kind}, and rounds floats only")
        return [(use, floats_of(use.value))]

    def build(self, op: Op, form: Form, emission: Emission) -> Buffer:
        """One step."""
        x, read = emission.floats(op, op.use(0))
        assert isinstance(read.layout, Floats)  # noqa: S101 - no other form is asked for
        scale, zero = (op.constant(i).reshape(-1)[0] for i in (1, 2))
        shape = QuantizeShape(
            read.layout.rows, read.layout.columns, read.layout.stride, float(scale), int(zero)
        )
        kernel = emission.kernel(
            "quantize", (shape,), lambda symbol, isa: quantize_kernel(symbol, isa, shape),
            tuned=False,
        )  # fmt: skip
        return emission.step(op, form, kernel, [x], Cost())
