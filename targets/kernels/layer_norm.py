"""Layer norm of fp32 rows, each put together of runs of floats that lie anywhere.

Instruction set: any with fp32 vectors. Tile: one row, `_VECTORS` vectors at once. Layout: fp32 rows
in, through a table of runs where they do not lie as they are read; fp32 rows out.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

from tvm.script.ir_builder import tirx as T

from vitc.targets.isa import Isa
from vitc.targets.kernels.emitter import Emitter, Kernel
from vitc.targets.kernels.pieces import folded, pieces

__all__ = ["LayerNormShape", "layer_norm_kernel"]

_VECTORS: Final = 4
"""Sums that do not wait for each other."""


@dataclass(frozen=True)
class LayerNormShape:
    """Geometry of a layer norm.

    Attributes:
        rows: Rows.
        runs: Parts of a row that lie in one piece.
        length: Floats of a run.
        distance: Floats from one row to the next, of one run each; None where a table says.
        stride: Floats from one row of the result to the next.
        epsilon: What is added to the variance.
    """

    rows: int
    runs: int
    length: int
    distance: int | None
    stride: int
    epsilon: float


def layer_norm_kernel(symbol: str, isa: Isa, shape: LayerNormShape) -> Kernel:
    """Build the layer norm: `(x - mean) / sqrt(variance + epsilon) * gain + bias`.

    Arguments of the C function: x, [table [rows, runs] (int32),] gain, bias [runs * length], out
    [rows, stride], begin, end.

    Args:
        symbol: Name of the C function.
        isa: Instruction set.
        shape: Geometry.

    Returns:
        The kernel. Its tasks are rows.
    """
    emitter = Emitter(symbol)
    channels, length = shape.runs * shape.length, shape.length
    widest = min(_VECTORS * isa.float_lanes, 1 << length.bit_length() - 1)
    with emitter.open() as e:
        widths = {width for _, width in pieces(e, length, widest)}
        tables = {} if shape.distance is not None else {"table": "int32"}
        x, *table, gain, bias, out = e.pointers(
            x="float32", **tables, gain="float32", bias="float32", out="float32"
        )

        def over(row: Any, part: Callable[[Any, Any, int], None]) -> None:
            """All parts of a row: where one lies in memory, where in the row, and its width."""
            with ExitStack() as stack:
                run: Any = T.int32(0)
                if shape.runs > 1:
                    run = stack.enter_context(e.loop(0, shape.runs))
                place = table[0][row * shape.runs + run] if table else row * shape.distance
                base, start = e.let(place), e.let(run * length)
                for at, width in pieces(e, length, widest):
                    with at as first:
                        part(base + first, start + first, width)

        def lanes(value: Any, width: int) -> Any:
            return value if width == 1 else e.splat(value, width)

        def mean_of(row: Any, value: Callable[[Any, int], Any]) -> Any:
            sums = {width: e.local("float32", width) for width in widths}
            for width, array in sums.items():
                e.store(array, 0, e.constant("float32", 0, width), width)

            def add(place: Any, _: Any, width: int) -> None:
                total = e.load(sums[width], 0, width) + value(place, width)
                e.store(sums[width], 0, total, width)

            over(row, add)
            return e.let(folded(e, sums, lambda a, b: a + b) * T.float32(1 / channels))

        with e.loop(e.begin, e.end) as row:
            mean = mean_of(row, lambda place, width: e.load(x, place, width))

            def apart(place: Any, width: int, mean: Any = mean) -> Any:
                return e.let(e.load(x, place, width) - lanes(mean, width))

            def square(place: Any, width: int) -> Any:
                difference = apart(place, width)
                return difference * difference

            variance = mean_of(row, square)
            scale = e.let(T.float32(1) / T.sqrt(variance + T.float32(shape.epsilon)))

            def write(place: Any, column: Any, width: int, row: Any = row) -> None:
                unit = apart(place, width) * lanes(scale, width)
                value = unit * e.load(gain, column, width) + e.load(bias, column, width)
                e.store(out, row * shape.stride + column, value, width)

            over(row, write)
            gap = shape.stride - channels
            for at, width in pieces(e, gap, min(gap, isa.float_lanes)) if gap else ():
                with at as first:
                    behind = row * shape.stride + channels + first
                    e.store(out, behind, e.constant("float32", 0, width), width)
    return emitter.kernel(shape.rows)
