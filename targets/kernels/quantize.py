"""Codes of floats: x / scale to the nearest integer, ties to even, + zero, within 0 to 255.

Instruction set: any with fp32 vectors. Tile: one row, `_VECTORS` vectors at once. Layout: fp32 rows
in; bytes out, row behind row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tvm.script.ir_builder import tirx as T

from vitc.targets.isa import Isa
from vitc.targets.kernels.emitter import Emitter, Kernel
from vitc.targets.kernels.pieces import pieces

__all__ = ["QuantizeShape", "quantize_kernel"]

_VECTORS: Final = 4
_LEVELS: Final = 255
_WHOLE: Final = 1.5 * 2**23
"""A float whose last place is 1, and stays so when up to 2^22 are added or taken away: a sum is
rounded as a float that is rounded to an integer, on processors without an instruction for that."""


@dataclass(frozen=True)
class QuantizeShape:
    """Geometry, and how floats become codes.

    Attributes:
        rows: Rows.
        columns: Floats of a row.
        distance: Floats from one row to the next.
        scale: What a step of a code is worth, an fp32 value.
        zero: Code of 0.0.
    """

    rows: int
    columns: int
    distance: int
    scale: float
    zero: int


def quantize_kernel(symbol: str, isa: Isa, shape: QuantizeShape) -> Kernel:
    """Build the codes of rows of floats.

    Arguments of the C function: x, out (uint8) [rows, columns], begin, end.

    Args:
        symbol: Name of the C function.
        isa: Instruction set.
        shape: Geometry and codes.

    Returns:
        The kernel. Its tasks are rows.
    """
    emitter = Emitter(symbol)
    widest = min(_VECTORS * isa.float_lanes, 1 << shape.columns.bit_length() - 1)
    with emitter.open() as e:
        x, out = e.pointers(x="float32", out="uint8")
        with e.loop(e.begin, e.end) as row:
            base, start = e.let(row * shape.distance), e.let(row * shape.columns)
            for at, width in pieces(e, shape.columns, widest):
                with at as first:
                    value = e.load(x, base + first, width)
                    value = value / e.constant("float32", shape.scale, width)
                    # Its ends are integers, so it may come before the rounding.
                    value = T.max(value, e.constant("float32", -shape.zero, width))
                    value = T.min(value, e.constant("float32", _LEVELS - shape.zero, width))
                    whole = e.constant("float32", _WHOLE, width)
                    value = e.let(e.let(value + whole) - whole)
                    code = e.cast("int32", value, width) + e.constant("int32", shape.zero, width)
                    e.store(out, start + first, e.cast("uint8", code, width), width)
    return emitter.kernel(shape.rows)
