"""Rows of a table of floats, by the numbers that a run is given: an embedding of words.

Instruction set: any. Tile: one row. Layouts: an index port in, fp32 rows out; what lies between the
rows that are written is zero.
"""

from __future__ import annotations

from vitc.targets.kernels.emitter import HALF, Emitter, Kernel

__all__ = ["pick_rows_kernel"]


def pick_rows_kernel(symbol: str, *, rows: int, stride: int, ordered: bool) -> Kernel:
    """Build `out[i] = table[index[i]]`.

    Arguments of the C function: table [.., stride], index (int32, each at least 0 and below the
    rows of the table, which the driver has checked), [order [rows] (int32),] out, begin, end.

    Args:
        symbol: Name of the C function.
        rows: Rows that are picked.
        stride: Floats from one row to the next, of the table and of what is written.
        ordered: Whether `order` holds the number of the index that each row is picked by.

    Returns:
        The kernel. Its tasks are rows.
    """
    emitter = Emitter(symbol)
    with emitter.open() as e:
        tables = {"order": "int32"} if ordered else {}
        table, index, *order, out = e.pointers(
            table="float32", index="int32", **tables, out="float32"
        )
        with e.loop(e.begin, e.end) as row:
            picked = e.let(index[order[0][row] if ordered else row])
            with e.loop(0, stride // HALF) as part:
                values = e.load(table, picked * stride + part * HALF, HALF)
                e.store(out, row * stride + part * HALF, values, HALF)
    return emitter.kernel(rows)
