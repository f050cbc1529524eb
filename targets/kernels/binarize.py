"""Binarization of the residual stream against thresholds, straight into packed bits.

Instruction set: any. Tile: one row, or one lane block. Layouts: fp32 rows in, rows or lanes layout
out.

bit = (x >= threshold) XOR flip. A flip (a negative batch norm gain) is a bit mask applied to whole
words. Rows may be read through a table of their numbers (windows, shifts, rows that are read as
one).
"""

from __future__ import annotations

from typing import Any

from tvm.script.ir_builder import tirx as T

from vitc.targets.isa import Isa
from vitc.targets.kernels.emitter import HALF, Emitter, Kernel, mask_bits
from vitc.targets.packing import WORD, round_up

__all__ = ["along_columns_kernel", "along_rows_kernel"]


def along_rows_kernel(
    symbol: str,
    rows: int,
    columns: int,
    stride: int,
    *,
    ordered: bool = False,
    by_column: bool = False,
) -> Kernel:
    """Binarize `x [rows, columns]` against a threshold a row, or a column; bits run along a row.

    Arguments of the C function: x, [order [rows] (int32),] threshold [rows], flip [rows] (uint16, 0
    or 0xFFFF), out (rows layout), begin, end. By column: threshold [columns], flip [columns / 16]
    (uint16, a bit a column), both padded to words of bits.

    Args:
        symbol: Name of the C function.
        rows: Rows (tokens) that are written.
        columns: Columns (channels).
        stride: Floats from one row of x to the next.
        ordered: Whether `order` holds the number of the row of x that each row is made of.
        by_column: Whether columns have thresholds, instead of rows.

    Returns:
        The kernel. Its tasks are rows.
    """
    emitter = Emitter(symbol)
    halves = round_up(columns, WORD) // HALF
    with emitter.open() as e:
        tables = {"order": "int32"} if ordered else {}
        x, *order, threshold, flip, out = e.pointers(
            x="float32", **tables, threshold="float32", flip="uint16", out="uint16"
        )
        with e.loop(e.begin, e.end) as row:
            limit = None if by_column else e.let(e.splat(threshold[row], HALF))
            invert = None if by_column else e.let(flip[row])
            full = columns // HALF
            start = e.let(order[0][row] * stride) if ordered else row * stride

            def word(
                half: Any,
                valid: int,
                row: Any = row,
                start: Any = start,
                limit: Any = limit,
                invert: Any = invert,
            ) -> None:
                if by_column:
                    limit, invert = e.load(threshold, half * HALF, HALF), flip[half]
                bits = mask_bits(e.load(x, start + half * HALF, HALF) >= limit)
                value = T.bitwise_xor(bits, invert)
                if valid < HALF:
                    value = T.bitwise_and(value, e.constant("uint16", (1 << valid) - 1))
                e.store(out, row * halves + half, value)

            with e.loop(0, full) as half:
                word(half, HALF)
            for half in range(full, halves):
                word(half, max(0, columns - half * HALF))
    return emitter.kernel(rows, compare=rows * halves * HALF)


def along_columns_kernel(
    symbol: str,
    isa: Isa,
    rows: int,
    columns: int,
    stride: int,
    *,
    groups: int = 1,
    ordered: bool = False,
) -> Kernel:
    """Binarize `x [groups * rows, columns]` against a threshold a column; bits run along a column.

    Arguments of the C function: x, [order [groups * rows] (int32),] threshold [columns], flip
    [columns] (elements, all bits 0 or 1), out (lanes layout, a column of a group a lane), begin,
    end.

    Args:
        symbol: Name of the C function.
        isa: Instruction set.
        rows: Rows (tokens) of a group, the packed axis.
        columns: Columns (channels).
        stride: Floats from one row of x to the next.
        groups: Groups of rows.
        ordered: Whether `order` holds the number of the row of x that each row is made of.

    Returns:
        The kernel. Its tasks are lane blocks of the groups.
    """
    emitter = Emitter(symbol)
    bits, lanes = isa.element_bits, isa.lanes
    elements = round_up(rows, WORD) // bits
    blocks = round_up(columns, lanes) // lanes
    with emitter.open() as e:
        tables = {"order": "int32"} if ordered else {}
        x, *order, threshold, flip, out = e.pointers(
            x="float32", **tables, threshold="float32", flip=isa.element, out=isa.element
        )

        def element_word(task: Any, half: int, element: Any, count: int) -> None:
            block, first = task, None
            if groups > 1:
                group, block = e.split(task, blocks)
                first = e.let(group * rows)
            lane = block * lanes + half * HALF
            limit = e.let(e.load(threshold, lane, HALF))
            word = e.local(isa.element, HALF)
            e.store(word, 0, e.constant(isa.element, 0, HALF), HALF)
            for bit in range(count):
                row = element * bits + bit
                if first is not None:
                    row = first + row
                if ordered:
                    row = order[0][row]
                value = e.load(x, row * stride + lane, HALF)
                one = T.Select(
                    value >= limit,
                    e.constant(isa.element, 1 << bit, HALF),
                    e.constant(isa.element, 0, HALF),
                )
                e.store(word, 0, T.bitwise_or(e.load(word, 0, HALF), one), HALF)
            result = T.bitwise_xor(e.load(word, 0, HALF), e.load(flip, lane, HALF))
            if count < bits:
                result = T.bitwise_and(result, e.constant(isa.element, (1 << count) - 1, HALF))
            e.store(out, (task * elements + element) * lanes + half * HALF, result, HALF)

        def lane_words(task: Any, half: int) -> None:
            with e.loop(0, rows // bits) as element:
                element_word(task, half, element, bits)
            for element in range(rows // bits, elements):
                element_word(task, half, element, max(0, rows - element * bits))

        # Blocks wider than a word may end behind the columns that there are.
        room = round_up(columns, WORD) - (blocks - 1) * lanes
        with e.loop(e.begin, e.end) as task:
            for half in range(lanes // HALF):
                if half * HALF < room:
                    lane_words(task, half)
                elif blocks > 1:
                    with T.If(T.floormod(task, blocks) < blocks - 1), T.Then():
                        lane_words(task, half)
    tasks = groups * blocks
    return emitter.kernel(tasks, compare=tasks * lanes * rows)
