"""Copy of a picture whose lines have the padding of a convolution, all colours of a pixel together.

Instruction set: any. Tile: one line. Layout: fp32 in memory of any strides; fp32 lines out.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm.script.ir_builder import tirx as T

from vitc.targets.isa import Isa
from vitc.targets.kernels.emitter import Emitter, Kernel
from vitc.targets.kernels.pieces import pieces

__all__ = ["LinesShape", "copy_lines_kernel"]


@dataclass(frozen=True)
class LinesShape:
    """Geometry of a copy.

    Attributes:
        picture: Height, width and colours.
        steps: Floats from one line, pixel and colour of the picture to the next.
        before: Lines and pixels of zeros before the picture.
        lines: Lines that are written.
        stride: Floats from one of them to the next; what is not of the picture is zero.
    """

    picture: tuple[int, int, int]
    steps: tuple[int, int, int]
    before: tuple[int, int]
    lines: int
    stride: int


def copy_lines_kernel(symbol: str, isa: Isa, shape: LinesShape) -> Kernel:
    """Build the copy.

    Arguments of the C function: x, out [lines, stride], begin, end.

    Args:
        symbol: Name of the C function.
        isa: Instruction set.
        shape: Geometry.

    Returns:
        The kernel. Its tasks are lines.
    """
    emitter = Emitter(symbol)
    (height, width, colours), (down, right, across) = shape.picture, shape.steps
    top, left = shape.before
    with emitter.open() as e:
        x, out = e.pointers(x="float32", out="float32")

        def clear(start: object, count: int) -> None:
            for at, lanes in pieces(e, count, isa.float_lanes) if count else ():
                with at as first:
                    e.store(out, start + first, e.constant("float32", 0, lanes), lanes)

        with e.loop(e.begin, e.end) as line:
            start = e.let(line * shape.stride)
            with T.If(T.And(line >= top, line < top + height)):
                with T.Then():
                    clear(start, left * colours)
                    read, written = e.let((line - top) * down), e.let(start + left * colours)
                    with e.loop(0, width) as pixel:
                        for colour in range(colours):
                            value = x[read + pixel * right + colour * across]
                            e.store(out, written + pixel * colours + colour, value)
                    end = (left + width) * colours
                    clear(e.let(start + end), shape.stride - end)
                with T.Else():
                    clear(start, shape.stride)
    return emitter.kernel(shape.lines)
