"""Lines: a picture with the padding of a convolution, its pixels one behind the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vitc.compiler.form import Form, floats_of
from vitc.compiler.graph import Op, Use, refused
from vitc.compiler.plan import Buffer, Cost
from vitc.compiler.rules.rule import Rule
from vitc.compiler.runs import places_of, steps_of
from vitc.targets.isa import Isa
from vitc.targets.kernels.copy_lines import LinesShape, copy_lines_kernel
from vitc.targets.layouts import Floats

if TYPE_CHECKING:
    from vitc.compiler.emit import Emission

__all__ = ["LINES", "Lines"]

LINES: Final = "Lines"


class Lines(Rule):
    """Input is a picture [height, width, colours]; output are lines [lines, pixels * colours].

    Attribute `before` has the lines and the pixels of zeros before the picture.
    """

    def unread(self, op: Op) -> list[int]:
        """Pictures that do not lie evenly, whether an input holds them or a buffer."""
        use, layout = op.use(0), floats_of(op.use(0).value).layout
        assert isinstance(layout, Floats)  # noqa: S101 - floats_of says so
        strides = (use.value.channels, layout.stride)
        return [0] if any(steps_of(places_of(use, n)) is None for n in strides) else []

    def asks(self, op: Op, form: Form, isa: Isa) -> list[tuple[Use, Form]]:
        """Floats, in any order: it is read through."""
        del form, isa
        use = op.use(0)
        if use.value.kind != "float":
            raise refused(op, f"it reads {use.value.kind}, and is computed on floats only")
        return [(use, floats_of(use.value))]

    def build(self, op: Op, form: Form, emission: Emission) -> Buffer:
        """One copy."""
        use, layout = op.use(0), form.layout
        x, read = emission.floats(op, use)
        assert isinstance(layout, Floats)  # noqa: S101 - it offers no other
        assert isinstance(read.layout, Floats)  # noqa: S101 - no other form is asked for
        steps = steps_of(places_of(use, read.layout.stride))
        assert steps is not None  # noqa: S101 - `unread` says so
        (height, width, colours), (down, right, across) = use.shape, steps
        shape = LinesShape(
            (height, width, colours), (down, right, across), op.attributes["before"],
            layout.rows, layout.stride,
        )  # fmt: skip
        kernel = emission.kernel(
            "copy_lines",
            (shape,),
            lambda symbol, isa: copy_lines_kernel(symbol, isa, shape),
            tuned=False,
        )
        return emission.step(op, form, kernel, [x], Cost())
