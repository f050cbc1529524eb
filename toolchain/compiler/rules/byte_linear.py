"""ByteProduct: bytes of an image times constant integers, scaled once; what a patch embedding is.

The bytes are read where they lie, through the order of the patches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vitc.compiler.form import Form, codes_of
from vitc.compiler.graph import Array, Op, Use, refused
from vitc.compiler.plan import Buffer, Cost, Operand
from vitc.compiler.rules.rule import Rule
from vitc.compiler.runs import Runs, places_of
from vitc.targets.isa import Isa
from vitc.targets.kernels.byte_linear import (
    LONGEST_ROW,
    ByteLinearShape,
    byte_linear_kernel,
    made_up,
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
        """Codes, in any order; the bytes of an image are as they come.

        Raises:
            VitcError: If it reads no bytes.
        """
        del form, isa
        use = op.use(0)
        if use.value.kind != "bytes":
            raise refused(op, f"it reads {use.value.kind}, and is computed on bytes only")
        return [(use, codes_of(use.value))]

    def build(self, op: Op, form: Form, emission: Emission) -> Buffer:
        """One product."""
        use, weight = op.use(0), op.constant(1)
        runs, weight = _runs(op, use, weight)
        corners, shift = runs.corners, made_up(emission.isa, weight) - op.constant(5)
        rows, count = runs.places.shape
        assert isinstance(form.layout, Floats)  # noqa: S101 - it offers no other
        stride, prefix = form.layout.stride, form.layout.rows - rows
        outputs = weight.shape[1]
        shape = ByteLinearShape(
            rows, outputs, count, runs.length, len(weight), stride, prefix,
            bool(op.number("by_row")), bool(shift.any()), corners is not None,
        )  # fmt: skip
        kernel = emission.kernel(
            _STEM, (shape,), lambda symbol, isa: byte_linear_kernel(symbol, isa, shape)
        )
        isa = emission.tiled(_STEM, (shape,))
        _, widths = blocks_of(isa, shape.rows, outputs)

        def padded(vector: Array, to: int) -> Array:
            whole = np.zeros((*vector.shape[:-1], to), vector.dtype)
            whole[..., :outputs] = vector
            return whole

        tables = (runs.places,) if corners is None else corners
        constants: list[Array] = [table.astype(np.int32) for table in tables]
        constants.append(tiled_weight(isa, shape, weight))
        if shape.shifted:
            constants.append(padded(shift, sum(widths)))
        constants += [padded(op.constant(i), sum(widths)) for i in (2, 3)]
        if shape.by_row or prefix:
            constants.append(padded(op.constant(4), stride))
        operands: list[Operand] = [emission.bytes_of(op, use)]
        operands += [emission.constant(array) for array in constants]
        # Products of integers, which keep none of the units busy that a cost is told in.
        return emission.step(op, form, kernel, operands, Cost())


def _runs(op: Op, use: Use, weight: Array) -> tuple[Runs, Array]:
    """How rows are read, and the weight to that: a sum takes its bytes as they lie in memory."""
    places = places_of(use, use.value.channels).reshape(-1, use.shape[-1])
    if places.shape[1] > LONGEST_ROW:
        raise refused(op, f"its rows have {places.shape[1]} bytes, wanted at most {LONGEST_ROW}")
    order = np.argsort(places[0], kind="stable")
    return Runs.of(places[:, order]), weight[..., order]
