"""Softmax of fp32 rows.

Instruction set: any with fp32 vectors. Tile: one row, `_VECTORS` vectors at once. Layout: fp32 rows
in and out. The last vector of a row that no vector divides overlaps the one before: what it has
again is not added up again, and comes out the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from tvm.script.ir_builder import tirx as T

from vitc.targets.isa import Isa
from vitc.targets.kernels.emitter import Emitter, Kernel
from vitc.targets.kernels.pieces import folded, pieces
from vitc.targets.kernels.polynomials import exp_below_zero

__all__ = ["SoftmaxShape", "softmax_kernel"]

_LEAST: Final = -3.4028234663852886e38
"""Of fp32."""
_VECTORS: Final = 4
"""Exponentials that do not wait for each other."""


@dataclass(frozen=True)
class SoftmaxShape:
    """Geometry of a softmax.

    Attributes:
        rows: Rows.
        length: Floats of a row; at least as many as a vector has.
        distance: Floats from one row to the next.
        stride: The same of the result.
    """

    rows: int
    length: int
    distance: int
    stride: int


def softmax_kernel(symbol: str, isa: Isa, shape: SoftmaxShape) -> Kernel:
    """Build the softmax: `exp(x - max) / sum`.

    Arguments of the C function: x [rows, distance], out [rows, stride], begin, end.

    Args:
        symbol: Name of the C function.
        isa: Instruction set.
        shape: Geometry.

    Returns:
        The kernel. Its tasks are rows.
    """
    emitter = Emitter(symbol)
    lanes, length = isa.float_lanes, shape.length
    whole, left = divmod(length, lanes)
    with emitter.open() as e:
        x, out = e.pointers(x="float32", out="float32")

        def over(visit: Callable[[Any, int], None]) -> None:
            """All whole vectors of a row: where one lies, and its number of those at once."""
            together = min(whole, _VECTORS)
            rounds = whole // together
            with e.loop(0, rounds) as turn:
                first = e.let(turn * (together * lanes))
                for i in range(together):
                    visit(first + i * lanes, i)
            for i in range(rounds * together, whole):
                visit(T.int32(i * lanes), i % together)

        def started(start: float) -> Any:
            array = e.local("float32", lanes)
            e.store(array, 0, e.constant("float32", start, lanes), lanes)
            return array

        with e.loop(e.begin, e.end) as row:
            place, to = e.let(row * shape.distance), e.let(row * shape.stride)
            largest = [started(_LEAST) for _ in range(min(whole, _VECTORS))]
            sums = started(0)  # one, for the constants of the exponential need the registers

            def compare(at: Any, i: int, place: Any = place, largest: Any = largest) -> None:
                bigger = T.max(e.load(largest[i], 0, lanes), e.load(x, place + at, lanes))
                e.store(largest[i], 0, bigger, lanes)

            over(compare)
            if left:
                compare(T.int32(length - lanes), 0)
            for part in largest[1:]:
                bigger = T.max(e.load(largest[0], 0, lanes), e.load(part, 0, lanes))
                e.store(largest[0], 0, bigger, lanes)
            most = e.let(e.splat(folded(e, {lanes: largest[0]}, T.max), lanes))

            def power(at: Any, place: Any = place, to: Any = to, most: Any = most) -> Any:
                apart = e.let(e.load(x, place + at, lanes) - most)
                value = e.let(exp_below_zero(e, apart, lanes))
                e.store(out, to + at, value, lanes)
                return value

            def add(at: Any, _: int, sums: Any = sums) -> None:
                e.store(sums, 0, e.load(sums, 0, lanes) + power(at), lanes)

            over(add)
            last = None
            if left:
                last = power(T.int32(length - lanes))
                new = T.ramp(T.int32(0), T.int32(1), lanes) >= e.constant(
                    "int32", lanes - left, lanes
                )
                added = T.Select(new, last, e.constant("float32", 0, lanes))
                e.store(sums, 0, e.load(sums, 0, lanes) + added, lanes)
            total = folded(e, {lanes: sums}, lambda a, b: a + b)
            share = e.let(e.splat(e.let(T.float32(1) / total), lanes))

            def scale(at: Any, _: int, to: Any = to, share: Any = share) -> None:
                e.store(out, to + at, e.load(out, to + at, lanes) * share, lanes)

            over(scale)
            if last is not None:
                e.store(out, to + (length - lanes), last * share, lanes)
            gap = shape.stride - length
            for start, width in pieces(e, gap, min(gap, lanes)) if gap else ():
                with start as first:
                    e.store(out, to + length + first, e.constant("float32", 0, width), width)
    return emitter.kernel(shape.rows)
