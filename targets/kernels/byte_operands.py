"""What products of bytes have in common: geometry, operands, gathered rows, what sums become."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from tvm.script.ir_builder import tirx as T

from vitc.targets.isa import Isa
from vitc.targets.kernels.emitter import Emitter
from vitc.targets.kernels.row_tiles import RowTiles

__all__ = ["DIGIT_BITS", "LONGEST_ROW", "ByteLinearShape", "ByteOperands"]

LONGEST_ROW: Final = 1 << 12
"""Bytes of a row; a tile of them lies on the stack, of which a thread of the runner has 128 KB."""

DIGIT_BITS: Final = 7
"""Of one digit of an integer."""


@dataclass(frozen=True)
class ByteLinearShape:
    """Geometry of a product.

    Attributes:
        rows: Rows.
        outputs: Outputs of a row.
        runs: Parts of a row that lie in one piece.
        length: Bytes of a run.
        digits: Of an integer: 1 for 8 bits, 2 for 15.
        stride: Floats from one row of the result to the next.
        prefix: Rows of the result in front of those of the product.
        by_row: Whether something is added to each row of the result.
        shifted: Whether integers are added to the sums; they are where bytes are less than they
            are (`Isa.dot_less`).
        alike: Whether the runs of all rows are at the same places from their corners.
    """

    rows: int
    outputs: int
    runs: int
    length: int
    digits: int
    stride: int
    prefix: int = 0
    by_row: bool = False
    shifted: bool = False
    alike: bool = True


class ByteOperands:
    """Emits what is done to operands and results whatever multiplies them.

    Attributes:
        tiles: What tiles of rows have in common with those of other products.
        depth: Bytes of a gathered row, the filling behind it included.
        held: Type of gathered bytes.
    """

    def __init__(
        self, emitter: Emitter, isa: Isa, shape: ByteLinearShape, height: int, depth: int
    ) -> None:
        self.emitter, self.isa, self.shape = emitter, isa, shape
        self.height, self.depth = height, depth
        self.held = "uint8" if isa.dot_bytes else "int16"
        wide = shape.digits > 1 and not isa.dot_bytes
        corners = {"corners": "int32"} if shape.alike else {}
        shift = {"shift": "int32"} if shape.shifted else {}
        start = {"start": "float32"} if shape.by_row or shape.prefix else {}
        types = {
            "x": "uint8",
            **corners,
            "places": "int32",
            "weight": "int16" if wide else "int8",
            **shift,
            "scale": "float32",
            "bias": "float32",
            **start,
            "out": "float32",
        }
        given = dict(zip(types, emitter.pointers(**types), strict=True))
        self.x, self.places, self.weight = given["x"], given["places"], given["weight"]
        self.scale, self.bias, self.out = given["scale"], given["bias"], given["out"]
        self.corners: Any = given.get("corners")
        self.shift: Any = given.get("shift")
        self.start: Any = given.get("start")
        self.tiles = RowTiles(emitter, shape, height, isa.float_lanes, self.out)

    def gather_row(self, held: Any, row: Any, at: Any, most: int) -> None:
        """Lay the bytes of a row.

        Args:
            held: Where.
            row: Its number.
            at: Index of its first byte there.
            most: Bytes that are copied at once.
        """
        e, shape = self.emitter, self.shape
        first_run = e.let(self.corners[row] if shape.alike else row * shape.runs)
        with e.loop(0, shape.runs) as run:
            if shape.alike:
                source = e.let(first_run + self.places[run])
            else:
                source = e.let(self.places[first_run + run])
            target = e.let(at + run * shape.length)
            for first, count in _pieces(shape.length, most):
                value = e.load(self.x, source + first, count)
                if self.isa.dot_less:
                    value = T.bitwise_xor(value, e.constant("uint8", self.isa.dot_less, count))
                if self.held != "uint8":
                    value = e.cast(self.held, value, count)
                e.store(held, target + first, value, count)

    def finish(self, total: Any, row: Any, column: Any, ends: tuple[Any, Any]) -> None:
        """Scale, bias and what is added by row, each rounded, of a vector of sums of a row.

        Args:
            total: int32.
            row: Its row.
            column: The first of its outputs.
            ends: Scales and biases of them.
        """
        e, shape, lanes = self.emitter, self.shape, self.isa.float_lanes
        place = (row + shape.prefix) * shape.stride + column
        value = e.cast("float32", total, lanes) * ends[0]
        # Without it LLVM would multiply and add in one step, which rounds once.
        value = T.call_llvm_pure_intrin(f"float32x{lanes}", "llvm.arithmetic.fence", e.let(value))
        value = e.let(value) + ends[1]
        if shape.by_row:
            value = e.let(value) + e.load(self.start, place, lanes)
        e.store(self.out, place, value, lanes)


def _pieces(length: int, most: int) -> list[tuple[int, int]]:
    """A run in vectors of at most so many bytes: where each begins, and its bytes."""
    found, first = [], 0
    while first < length:
        count = min(most, 1 << ((length - first).bit_length() - 1))
        found.append((first, count))
        first += count
    return found
