"""The dialect in standard float operators: signs and weights are fp32 {+1, -1}, masks {0, 1}.

Sums of fewer than 2^24 products of such values are exact in fp32, so MatMul gives the integers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from vitc.passes.lowering import Emitter, Lowering
from vitc.passes.rewrite import dimensions

__all__ = ["LowerToFloat"]

Array = npt.NDArray[Any]


class LowerToFloat(Lowering):
    """dev.vitc -> MatMul, comparisons and arithmetic in fp32."""

    name = "lower_to_float"
    bits_dtype = ir.DataType.FLOAT
    integer_dtype = ir.DataType.FLOAT

    def signs(self, condition: ir.Value, emit: Emitter) -> ir.Value:
        """Store a condition as +1 or -1."""
        plus, minus = (
            emit.constant(np.array(sign, dtype=np.float32), hint)
            for sign, hint in ((1, "plus"), (-1, "minus"))
        )
        return emit.op("Where", [condition, plus, minus])

    def mask(self, condition: ir.Value, emit: Emitter) -> ir.Value:
        """Store a condition as 1 or 0."""
        return emit.op("Cast", [condition], to=ir.DataType.FLOAT)

    def linear(self, bits: ir.Value, weight: Array, emit: Emitter) -> ir.Value:
        """Multiply signs [.., K] by constant signs [K, O]."""
        signs = np.where(weight == 1, 1, -1).astype(np.float32).T
        return emit.op("MatMul", [bits, emit.constant(signs, "weight")])

    def scores(self, query: ir.Value, key: ir.Value, emit: Emitter) -> ir.Value:
        """Multiply query signs by key signs."""
        return emit.op("MatMul", [query, _swapped(key, emit)])

    def selected(self, mask: ir.Value, value: ir.Value, emit: Emitter) -> ir.Value:
        """Multiply a mask by value signs."""
        return emit.op("MatMul", [mask, _swapped(value, emit)])

    def as_float(self, integers: ir.Value, emit: Emitter) -> ir.Value:  # noqa: ARG002
        """Return the integers, which are fp32 already."""
        return integers

    def integer(self, array: Array, hint: str, emit: Emitter) -> ir.Value:
        """Make an fp32 constant."""
        return emit.constant(array.astype(np.float32), hint)


def _swapped(value: ir.Value, emit: Emitter) -> ir.Value:
    rank = len(dimensions(value))
    return emit.op("Transpose", [value], perm=[*range(rank - 2), rank - 1, rank - 2])
