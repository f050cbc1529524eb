"""Product of bytes and constant integers on AMX tiles: what `byte_linear` says, sums included.

Instruction set: AMX-TILE, AMX-INT8, AVX-512. Tile: 16 or 32 rows x two tiles of 16 columns, which
    are 32 outputs of one digit or both digits of 16 outputs; 64 bytes of depth a step.
Layout: bytes as of `byte_linear`; weights [blocks][depth / 64][2 tiles][16][16 outputs][4].

Rows of a task are gathered on the stack, which row tiles are loaded from; weights pass block by
block. The digits of 15 bits are summed up apart, and put together with the rest of the epilogue.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
from tvm.script.ir_builder import tirx as T

from vitc.targets.isa import Isa
from vitc.targets.kernels.amx_tile import BLOCK, configure
from vitc.targets.kernels.byte_operands import DIGIT_BITS, ByteLinearShape, ByteOperands
from vitc.targets.kernels.emitter import CACHE_LINE, Emitter, Kernel
from vitc.targets.layouts.signs import TILE_BYTES, TILE_DEPTH, TILE_ROWS
from vitc.targets.packing import round_up

__all__ = ["byte_tiles_kernel", "tiles_of_weight", "uses_byte_tiles"]

_LANES: Final = 16
"""Outputs of a tile."""
_GROUP: Final = 4
"""Bytes that are multiplied and added at once."""
_HELD: Final = 64 << 10
"""Most bytes of gathered rows: threads of musl have a stack of 128 KiB."""
_ROW, _LANE = 4, 6
"""Registers of row tiles and of tiles of weights, behind those of sums."""


def uses_byte_tiles(isa: Isa, shape: ByteLinearShape) -> bool:
    """Whether a product runs on tiles: the machine has them, and both rows and depth fill one.

    Where a row is one step, the epilogue takes longer than products by vectors.
    """
    return isa.amx and shape.rows >= TILE_ROWS and shape.runs * shape.length > TILE_DEPTH


def _depth(shape: ByteLinearShape) -> int:
    return round_up(shape.runs * shape.length, TILE_DEPTH)


def _row_tiles(shape: ByteLinearShape) -> int:
    """Row tiles of a task."""
    rows = BLOCK * TILE_ROWS
    return BLOCK if shape.rows >= rows and rows * _depth(shape) <= _HELD else 1


def tiles_of_weight(shape: ByteLinearShape, weight: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Weights as the kernel reads them.

    Args:
        shape: Geometry.
        weight: int8 [digits, outputs, bytes of a row].
    """
    wide = BLOCK * _LANES // shape.digits
    padded = np.zeros((shape.digits, round_up(shape.outputs, wide), _depth(shape)), np.int8)
    padded[:, : shape.outputs, : weight.shape[2]] = weight
    columns = padded.reshape(shape.digits, -1, wide, padded.shape[2]).swapaxes(0, 1)
    tiles = columns.reshape(-1, BLOCK, _LANES, padded.shape[2] // TILE_DEPTH, TILE_ROWS, _GROUP)
    return tiles.transpose(0, 3, 1, 4, 2, 5).reshape(-1)


def byte_tiles_kernel(symbol: str, isa: Isa, shape: ByteLinearShape) -> Kernel:
    """Build the product; arguments of the C function are those of `byte_linear_kernel`.

    Returns:
        The kernel. Its tasks are tiles of rows; the last one overlaps the one before rather than
        run over.
    """
    emitter = Emitter(symbol)
    height = _row_tiles(shape) * TILE_ROWS
    tasks = -(-shape.rows // height)
    with emitter.open() as e:
        body = _Body(e, isa, shape, height)
        body.tiles.put_in_front(body.start)
        with e.loop(e.begin, e.end) as task:
            rows = body.tiles.rows(task)
            body.gather(rows[0])
            if body.full:
                with e.loop(0, body.full) as block:
                    body.block(block, rows[0], BLOCK)
            if body.left:
                body.block(T.int32(body.full), rows[0], body.left)
            body.tiles.clear(rows)
        e.perform("llvm.x86.tilerelease")
    columns = _LANES * BLOCK * (body.full + bool(body.left))
    macs = tasks * height * columns * body.depth
    return emitter.kernel(tasks, int8=macs)


class _Body(ByteOperands):
    """Emits tasks.

    Attributes:
        full: Blocks of two tiles whose outputs are all there.
        left: Tiles of outputs in the block behind them; 0 if there is none.
    """

    def __init__(self, emitter: Emitter, isa: Isa, shape: ByteLinearShape, height: int) -> None:
        super().__init__(emitter, isa, shape, height, _depth(shape))
        vectors = -(-shape.outputs // _LANES)
        self._vectors = BLOCK // shape.digits  # of outputs, in a block
        self.full, self.left = divmod(vectors, self._vectors)
        e = emitter
        configure(e)
        self._rows = e.scratch("uint8", height * self.depth)
        self._sums = e.scratch("int32", height * BLOCK * _LANES)
        filled = shape.runs * shape.length
        if filled < self.depth:
            # Weights behind a row are zeros, and what they multiply is never overwritten.
            with e.loop(0, height) as row:
                for k in range(filled, self.depth):
                    e.store(self._rows, row * self.depth + k, e.constant("uint8", 0))

    def gather(self, first: Any) -> None:
        """Lay the rows of a task from one on."""
        with self.emitter.loop(0, self.height) as row:
            self.gather_row(self._rows, first + row, row * self.depth, CACHE_LINE)

    def block(self, block: Any, first: Any, vectors: int) -> None:
        """A block of outputs of the rows from one on, of so many vectors."""
        self._multiply(block)
        e = self.emitter
        vectors = min(vectors, self._vectors)
        column = e.let(block * (self._vectors * _LANES))
        ends, shifts = [], []
        for vector in range(vectors):
            at = column + vector * _LANES
            ends.append(tuple(e.let(e.load(of, at, _LANES)) for of in (self.scale, self.bias)))
            shifts.append(e.let(e.load(self.shift, at, _LANES)) if self.shape.shifted else None)
        with e.loop(0, self.height) as row:
            for vector in range(vectors):
                digits = range(vector, vector + self.shape.digits)
                parts = [e.load(self._sums, (row * BLOCK + d) * _LANES, _LANES) for d in digits]
                total = parts[0]
                if len(parts) > 1:
                    total = total * e.constant("int32", 1 << DIGIT_BITS, _LANES) + parts[1]
                if shifts[vector] is not None:
                    total = total + shifts[vector]
                self.finish(total, first + row, column + vector * _LANES, ends[vector])

    def _multiply(self, block: Any) -> None:
        """Sums of the gathered rows, [rows, 2 tiles, 16 columns]."""
        e, steps = self.emitter, self.depth // TILE_DEPTH
        places = [(r, t) for r in range(self.height // TILE_ROWS) for t in range(BLOCK)]
        for r, t in places:
            e.perform("llvm.x86.tilezero", T.uint8(r * BLOCK + t))
        with e.loop(0, steps) as k:
            for r in range(self.height // TILE_ROWS):
                at = r * TILE_ROWS * self.depth + k * TILE_DEPTH
                self._load(_ROW + r, self._rows[at], self.depth)
            for t in range(BLOCK):
                at = ((block * steps + k) * BLOCK + t) * TILE_BYTES
                self._load(_LANE + t, self.weight[at], TILE_DEPTH)
            for r, t in places:
                registers = (r * BLOCK + t, _ROW + r, _LANE + t)
                e.perform("llvm.x86.tdpbusd", *(T.uint8(number) for number in registers))
        stride = T.int64(4 * BLOCK * _LANES)
        for r, t in places:
            place = T.address_of(self._sums[(r * TILE_ROWS * BLOCK + t) * _LANES])
            e.perform("llvm.x86.tilestored64", T.uint8(r * BLOCK + t), place, stride)

    def _load(self, register: int, element: Any, stride: int) -> None:
        place = T.address_of(element)
        self.emitter.perform("llvm.x86.tileloadd64", T.uint8(register), place, T.int64(stride))
