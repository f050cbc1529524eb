"""ByteProduct: bytes of an image times constant integers, scaled once; what a patch embedding is.

The bytes are read where they lie, through the order of the patches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vitc.compiler.form import Form
from vitc.compiler.graph import Array, Op, Use, refused
from vitc.compiler.plan import Buffer, Cost, Operand
from vitc.compiler.rules.rule import Rule
from vitc.compiler.runs import Runs, places_of
from vitc.targets.isa import Isa
from vitc.targets.kernels.byte_linear import (
    LONGEST_ROW,
    ByteLinearShape,
    byte_linear_kernel,
    tiled_weight,
)
from vitc.targets.kernels.float_linear import blocks_of
from vitc.targets.layouts import Floats

if TYPE_CHECKING:
    from vitc.compiler.emit import Emission

__all__ = ["ByteLinear"]

_STEM = "byte_linear"


class ByteLinear(Rule):
    """`(scale * fp32(x @ weight.T) + bias) + start`, each operation rounded on its own.

    Inputs are x, the weight [digits, outputs, bytes of a row], scale and bias [outputs], and start
    [prefix + rows, outputs], or [prefix, outputs] where attribute `by_row` is not set.
    """

    def asks(self, op: Op, form: Form, isa: Isa) -> list[tuple[Use, Form]]:
        """Nothing: the bytes are as they come."""
        del op, form, isa
        return []

    def build(self, op: Op, form: Form, emission: Emission) -> Buffer:
        """One product."""
        use, weight = op.use(0), op.constant(1)
        if use.value.kind != "bytes":
            raise refused(op, f"it reads {use.value.kind}, and is computed on bytes of an image")
        rows, runs = _runs(op, use)
        first, places = rows
        assert isinstance(form.layout, Floats)  # noqa: S101 - it offers no other
        stride, prefix = form.layout.stride, form.layout.rows - len(first)
        outputs = weight.shape[1]
        shape = ByteLinearShape(
            len(first), outputs, len(places), runs.length, len(weight), stride, prefix,
            bool(op.number("by_row")),
        )  # fmt: skip
        kernel = emission.kernel(
            _STEM, (shape,), lambda symbol, isa: byte_linear_kernel(symbol, isa, shape)
        )
        isa = emission.tiled(_STEM, (shape,))
        _, widths = blocks_of(isa, shape.rows, outputs)

        def padded(vector: Array, to: int) -> Array:
            whole = np.zeros((*vector.shape[:-1], to), np.float32)
            whole[..., :outputs] = vector
            return whole

        constants: list[Array] = [first.astype(np.int32), places.astype(np.int32)]
        constants.append(tiled_weight(isa, shape, weight))
        constants += [padded(op.constant(i), sum(widths)) for i in (2, 3)]
        if shape.by_row or prefix:
            constants.append(padded(op.constant(4), stride))
        operands: list[Operand] = [emission.port(use.value)]
        operands += [emission.constant(array) for array in constants]
        # Products of integers, which keep none of the units busy that a cost is told in.
        return emission.step(op, form, kernel, operands, Cost())


def _runs(op: Op, use: Use) -> tuple[tuple[Array, Array], Runs]:
    """Corner of each row, the places of its runs from there, and the runs."""
    runs = Runs.of(places_of(use, use.value.channels).reshape(-1, use.shape[-1]))
    corners = runs.corners
    if corners is None:
        raise refused(op, "its rows are not alike, as patches are")
    if use.shape[-1] > LONGEST_ROW:
        raise refused(op, f"its rows have {use.shape[-1]} bytes, wanted at most {LONGEST_ROW}")
    return corners, runs
