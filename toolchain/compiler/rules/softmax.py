"""Softmax along the channels of rows that lie as they are read; any other is TVM's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vitc.compiler.form import Form
from vitc.compiler.graph import Op
from vitc.compiler.plan import Buffer, Cost
from vitc.compiler.rules.float_ops import FloatOps
from vitc.targets.kernels.softmax import SoftmaxShape, softmax_kernel
from vitc.targets.layouts import Floats

if TYPE_CHECKING:
    from vitc.compiler.emit import Emission

__all__ = ["Softmax"]


class Softmax(FloatOps):
    """`exp(x - max) / sum`, along an axis."""

    def build(self, op: Op, form: Form, emission: Emission) -> Buffer:
        """One step; or it is left to the Relax function of the entry."""
        use = op.use(0)
        along_channels = op.attributes.get("axis", -1) in (-1, len(use.shape))
        channels = use.value.channels
        as_it_lies = use.whole and use.shape[-1] == channels
        if not along_channels or not as_it_lies or channels < emission.isa.float_lanes:
            return super().build(op, form, emission)
        x, read = emission.floats(op, use)
        assert isinstance(read.layout, Floats)  # noqa: S101 - no other form is asked for
        stride = form.layout.stride if isinstance(form.layout, Floats) else channels
        shape = SoftmaxShape(use.value.rows, channels, read.layout.stride, stride)
        kernel = emission.kernel(
            "softmax_rows",  # TVM's own is called softmax
            (shape,),
            lambda symbol, isa: softmax_kernel(symbol, isa, shape),
            tuned=False,
        )
        return emission.step(op, form, kernel, [x], Cost())
