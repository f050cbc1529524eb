"""What tiles of rows have in common: the rows of a tile, those in front of all, what lies between.

The result of a product is rows of fp32 numbers at a distance, behind others that are constant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from tvm.script.ir_builder import tirx as T

from vitc.targets.kernels.emitter import Emitter

__all__ = ["RowTiles"]


class _Shape(Protocol):
    @property
    def rows(self) -> int: ...

    @property
    def outputs(self) -> int: ...

    @property
    def stride(self) -> int: ...

    @property
    def prefix(self) -> int: ...


@dataclass(frozen=True)
class RowTiles:
    """Emits what tiles of rows do beside their product.

    Attributes:
        emitter: Where the code goes.
        shape: Rows and outputs of the product; floats from one row of the result to the next; rows
            of it in front of the product.
        height: Rows of a tile.
        lanes: Floats of a vector.
        out: The result.
    """

    emitter: Emitter
    shape: _Shape
    height: int
    lanes: int
    out: Any

    def put_in_front(self, start: Any) -> None:
        """Copy the rows in front of the product out of a buffer, with the first task."""
        e, lanes = self.emitter, self.lanes
        if not self.shape.prefix:
            return
        copied = e.loop(0, self.shape.prefix * self.shape.stride // lanes)
        with T.If(T.EQ(e.begin, 0)), T.Then(), copied as index:
            e.store(self.out, index * lanes, e.load(start, index * lanes, lanes), lanes)

    def rows(self, task: Any) -> list[Any]:
        """The rows of a tile; those of the last one end with the last row."""
        shape, height, e = self.shape, self.height, self.emitter
        if shape.rows == height:
            return [T.int32(r) for r in range(height)]
        first = e.let(task * height)
        if shape.rows % height:
            first = e.let(T.min(first, shape.rows - height))
        return [first + r for r in range(height)]

    def clear(self, rows: list[Any]) -> None:
        """Zeros between the outputs of each row and the next row."""
        e, shape, lanes = self.emitter, self.shape, self.lanes
        start = -(-shape.outputs // lanes) * lanes
        for row in rows:
            for column in range(start, shape.stride, lanes):
                at = (row + shape.prefix) * shape.stride + column
                e.store(self.out, at, e.constant("float32", 0, lanes), lanes)
