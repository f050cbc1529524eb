"""Copy of fp32 rows to another distance from each other.

Instruction set: any. Tile: one row. Layouts: fp32 rows in and out; what lies between the rows that
are written is zero.
"""

from __future__ import annotations

from vitc.targets.kernels.emitter import HALF, Emitter, Kernel

__all__ = ["copy_rows_kernel"]


def copy_rows_kernel(symbol: str, *, rows: int, columns: int, stride: int) -> Kernel:
    """Build the copy of `x [rows, columns]`.

    Arguments of the C function: x, out, begin, end.

    Args:
        symbol: Name of the C function.
        rows: Rows.
        columns: Floats of a row; those of x lie one behind the other.
        stride: Floats from one row of the output to the next.

    Returns:
        The kernel. Its tasks are rows.
    """
    emitter = Emitter(symbol)
    with emitter.open() as e:
        x, out = e.pointers(x="float32", out="float32")
        with e.loop(e.begin, e.end) as row:
            with e.loop(0, columns // HALF) as part:
                values = e.load(x, row * columns + part * HALF, HALF)
                e.store(out, row * stride + part * HALF, values, HALF)
            for column in range(columns // HALF * HALF, columns):
                e.store(out, row * stride + column, x[row * columns + column])
            for column in range(columns, stride):
                e.store(out, row * stride + column, e.constant("float32", 0))
    return emitter.kernel(rows)
