"""Products of one input with thresholds, as one: queries, keys and values fill vectors of slices.

Instruction set: any with bit slices. Tile: one row for bit slices, Isa.row_tile x Isa.lane_tile for
the popcounts of what fills no vector. Layouts: rows, slices, and lanes for the popcounts.

A vector of lanes of one bit takes as long for 384 outputs as for its 512. Side by side, three
products of 384 fill two vectors and leave a quarter of the third, which is counted. Each product
keeps its epilogue; bits that run along the rows are added row by row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal

from tvm.script.ir_builder import tirx as T

from vitc.targets.isa import Isa
from vitc.targets.kernels.binary_linear import LinearShape, counted_rows
from vitc.targets.kernels.emitter import HALF, Emitter, Kernel
from vitc.targets.kernels.epilogue import Constants, Keys, Rows, RowsOfColumns, finish_all
from vitc.targets.kernels.slices import Finish, SliceSums, slice_work
from vitc.targets.kernels.slices_across import slices_product
from vitc.targets.packing import ROW_PADDING, WORD, Axis, round_up

__all__ = ["JointPart", "joint_threshold_kernel"]

_OUTPUTS = ("scale", "offset")
"""Constants that follow the outputs."""


@dataclass(frozen=True)
class JointPart:
    """One of the products.

    Attributes:
        outputs: Its outputs, padded by groups.
        output: Bits along the lanes in rows layout; the same in lanes layout, a group being a head
            ("keys"); or bits along the rows in lanes layout ("columns").
        lanes: Lanes of a block of what it writes.
        two_sided: Whether the lower threshold is used.
        grouped: Whether thresholds differ by group of outputs.
    """

    outputs: Axis
    output: Literal["rows", "keys", "columns"]
    lanes: int
    two_sided: bool = False
    grouped: bool = False


def joint_threshold_kernel(
    symbol: str,
    isa: Isa,
    shape: LinearShape,
    parts: Sequence[JointPart],
    sliced: int,
    *,
    windows: int = 1,
    period: int = 0,
) -> Kernel:
    """Build products + thresholds.

    Arguments of the C function: rows of bits, slices of the first `sliced` lanes, [rows again and
    lanes of the others,] of each part scale times -2, offset, upper, [lower,] as of a threshold
    kernel; an output of each part, begin, end.

    Args:
        symbol: Name of the C function.
        isa: Instruction set.
        shape: Geometry of all lanes together.
        parts: The products, in the order of their lanes.
        sliced: Lanes that go by bit slices; the others are of the last part, and are counted.
        windows: Groups of as many rows, whose keys and columns are matrices of their own.
        period: Positions of a window, where all windows have the same constants of positions; 0 for
            one window.

    Returns:
        The kernel. Its tasks are windows; of one, as many rows as an element of columns has bits.
    """
    emitter = Emitter(symbol)
    rest = shape.lanes - sliced
    names = {"rows_in": "uint32", "slices_in": "uint16"}
    if rest:
        names.update(rows_again=isa.element, lanes_in=isa.element)
    for number, part in enumerate(parts):
        names.update({f"{name}_{number}": "float32" for name in (*_OUTPUTS, *_positions(part))})
    names.update({f"out_{number}": _written(isa, part) for number, part in enumerate(parts)})
    rows = shape.rows // windows
    unit = rows
    if windows == 1:
        columns = any(part.output == "columns" for part in parts)
        unit = isa.element_bits if columns else ROW_PADDING
    tasks = -(-shape.rows // unit)
    with emitter.open() as e:
        given = dict(zip(names, e.pointers(**names), strict=True))
        stride = round_up(period or shape.rows, ROW_PADDING)
        ends = []
        for number, part in enumerate(parts):
            kept = ("out", *_OUTPUTS, *_positions(part))
            own = {name: given[f"{name}_{number}"] for name in kept}
            group = part.outputs if part.grouped else None
            constants = Constants(
                e, own, _OUTPUTS, _positions(part), transposed=False, group=group, stride=stride,
                period=period,
            )  # fmt: skip
            ends.append(_epilogue(constants, isa.with_lanes(part.lanes), part, rows, windows))
        first, last = e.let(e.begin * unit), e.let(T.min(e.end * unit, shape.rows))
        for end in ends:
            if isinstance(end, RowsOfColumns):
                end.clear(e.begin, e.end, tasks)
        words = shape.elements * isa.element_bits // WORD
        product = slices_product(e, isa, sliced, shape.depth, words)
        sizes = [part.outputs.padded for part in parts]
        starts = [0, *accumulate(sizes)]
        spans = [
            (size, _finish(product, end, start, shape.k))
            for size, end, start in zip(sizes, ends, starts, strict=False)
        ]
        product.emit(given["rows_in"], given["slices_in"], (first, last), spans)
        if rest:
            counting = isa.with_lanes(parts[-1].lanes)
            left = LinearShape(shape.rows, rest, shape.k, shape.elements)
            operands = (given["rows_again"], given["lanes_in"])
            _count(e, counting, left, operands, (first, last), ends[-1], sizes[-1] - rest)
    work = slice_work(isa, shape.rows, sliced, shape.depth)
    if work and rest:
        work["popcount"] = shape.rows * rest * shape.elements * isa.element_bits
    return emitter.kernel(tasks, **work)


def _positions(part: JointPart) -> tuple[str, ...]:
    """Constants that follow the positions."""
    return ("upper", "lower") if part.two_sided else ("upper",)


def _written(isa: Isa, part: JointPart) -> str:
    """Data type of the elements that a part writes."""
    narrow = part.output == "keys" and isa.element_bits != WORD
    return isa.element if part.output == "columns" else "uint8" if narrow else "uint16"


def _epilogue(
    constants: Constants, isa: Isa, part: JointPart, rows: int, windows: int
) -> Rows | Keys | RowsOfColumns:
    if part.output == "rows":
        return Rows(constants, part.outputs.padded // HALF)
    if part.output == "keys":
        return Keys(constants, isa, rows, part.outputs, windows)
    blocks = round_up(part.outputs.padded, isa.lanes) // isa.lanes
    return RowsOfColumns(constants, isa, rows, blocks, windows)


def _finish(
    product: SliceSums, end: Rows | Keys | RowsOfColumns, start: int, k: int
) -> Finish:
    """What becomes of the lanes of a part, which begins at a lane."""
    e = end.constants.emitter

    def finish(row: Any, lane: Any, sums: Sequence[Any]) -> None:
        finish_all(end, row, e.let(lane - start), [product.centred(each, k) for each in sums])

    return finish


def _count(
    e: Emitter,
    isa: Isa,
    shape: LinearShape,
    operands: tuple[Any, Any],
    span: tuple[Any, Any],
    end: Rows | Keys | RowsOfColumns,
    start: int,
) -> None:
    """Emit the popcounts of the last lanes of a part, from a lane of it on."""
    first, last = span
    # A tile that begins in the last rows of a window ends in those of the next, or behind them all.
    behind = round_up(shape.rows, ROW_PADDING) - isa.row_tile

    def finish(row: Any, lane: Any, value: Any) -> None:
        with T.If(T.And(row >= first, row < last)), T.Then():
            end.finish(row, end.constants.lanes(e.let(lane + start)), value)

    count = T.truncdiv(last - first + T.int32(isa.row_tile - 1), T.int32(isa.row_tile))
    counted_rows(
        e, isa, shape, operands, (0, e.let(count)),
        lambda tile: T.min(first + tile * isa.row_tile, behind), finish,
    )  # fmt: skip
