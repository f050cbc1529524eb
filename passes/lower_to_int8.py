"""The dialect in standard integer operators: bits uint8 {0, 1}, weights int8 {+1, -1}.

I = 2 (a . W) - sum_k W          MatMulInteger of uint8 by int8, exact int32
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from vitc.passes.lowering import Emitter, Lowering
from vitc.passes.rewrite import dimensions

__all__ = ["LowerToInt8"]

Array = npt.NDArray[Any]


class LowerToInt8(Lowering):
    """dev.vitc -> MatMulInteger, comparisons and arithmetic."""

    name = "lower_to_int8"
    bits_dtype = ir.DataType.UINT8
    integer_dtype = ir.DataType.INT32

    def signs(self, condition: ir.Value, emit: Emitter) -> ir.Value:
        """Store a condition as a bit."""
        return emit.op("Cast", [condition], to=ir.DataType.UINT8)

    def mask(self, condition: ir.Value, emit: Emitter) -> ir.Value:
        """Store a condition as a bit."""
        return self.signs(condition, emit)

    def linear(self, bits: ir.Value, weight: Array, emit: Emitter) -> ir.Value:
        """Multiply bits [.., K] by constant signs [K, O]."""
        signs = np.where(weight == 1, 1, -1).astype(np.int8).T
        sums = emit.constant(signs.sum(axis=0, dtype=np.int32), "sums")
        dot = emit.op("MatMulInteger", [bits, emit.constant(signs, "weight")])
        return emit.op("Sub", [emit.op("Add", [dot, dot]), sums])

    def scores(self, query: ir.Value, key: ir.Value, emit: Emitter) -> ir.Value:
        """Multiply query bits by the signs of the key bits."""
        signs = _signs(key, emit)
        axis = emit.constant(np.array([-2]), "axis")
        sums = emit.op("ReduceSum", [emit.op("Cast", [signs], to=ir.DataType.INT32), axis])
        dot = emit.op("MatMulInteger", [query, signs])
        return emit.op("Sub", [emit.op("Add", [dot, dot]), sums])

    def selected(self, mask: ir.Value, value: ir.Value, emit: Emitter) -> ir.Value:
        """Multiply mask bits by the signs of the value bits."""
        return emit.op("MatMulInteger", [mask, _signs(value, emit)])

    def as_float(self, integers: ir.Value, emit: Emitter) -> ir.Value:
        """Cast int32 to fp32."""
        return emit.op("Cast", [integers], to=ir.DataType.FLOAT)

    def integer(self, array: Array, hint: str, emit: Emitter) -> ir.Value:
        """Make an int32 constant."""
        return emit.constant(array.astype(np.int32), hint)


def _signs(bits: ir.Value, emit: Emitter) -> ir.Value:
    """Return bits [.., R, K] as int8 signs [.., K, R]."""
    rank = len(dimensions(bits))
    small = emit.op("Cast", [bits], to=ir.DataType.INT8)
    one = emit.constant(np.array(1, dtype=np.int8), "one")
    signs = emit.op("Sub", [emit.op("Add", [small, small]), one])
    return emit.op("Transpose", [signs], perm=[*range(rank - 2), rank - 1, rank - 2])
