"""Product of bytes and constant integers of 8 or 15 bits, exact in int32, which becomes fp32.

Instruction set: any with vectors. x86 with VNNI adds four products of uint8 and int8 in one step
    (`vpdpbusd`), of 15 bits in two; ARM with dot products likewise, of bytes less 128 (`sdot`),
    which the shift makes up for; other x86 two of int16 (`pmaddwd`), never the saturating one of
    bytes; others multiply int16 by a lane. With AMX there are tiles (byte_tiles), but for a few
    rows. All are exact, so sums are the same everywhere.
Tile: Isa.float_rows rows x Isa.float_tile vectors of Isa.float_lanes outputs.
Layout: bytes in memory of any kind, of which a row is runs of equal length, at the same places from
    its corner or at any; weights [blocks of outputs][digits][K / group][outputs of a block][group];
    fp32 out.

A group of tiles has its bytes gathered on the stack, where each is broadcast from; its outputs pass
block by block.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
from tvm import tirx
from tvm.script.ir_builder import tirx as T

from vitc.targets.isa import Isa
from vitc.targets.kernels.byte_operands import (
    DIGIT_BITS,
    LONGEST_ROW,
    ByteLinearShape,
    ByteOperands,
)
from vitc.targets.kernels.byte_tiles import byte_tiles_kernel, tiles_of_weight, uses_byte_tiles
from vitc.targets.kernels.emitter import Emitter, Kernel
from vitc.targets.kernels.float_linear import blocks_of
from vitc.targets.packing import round_up

__all__ = ["LONGEST_ROW", "ByteLinearShape", "byte_linear_kernel", "made_up", "tiled_weight"]

_ON_STACK: Final = 24 << 10
"""Bytes of gathered rows, if that is more than one tile."""

_COPIED: Final = 16
"""Most bytes of a run that are copied at once."""


def _group(isa: Isa) -> int:
    """Products that one lane adds in one step."""
    return 4 if isa.dot_bytes else 2 if isa.dot_words else 1


def _depth(isa: Isa, shape: ByteLinearShape) -> int:
    """Bytes of a row with those that fill the last step up, whose weights are zero."""
    return round_up(shape.runs * shape.length, _group(isa) * isa.float_load)


def made_up(isa: Isa, weight: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """What is added to the sums because their bytes are less than they are.

    Args:
        isa: Instruction set.
        weight: int8 [digits, outputs, bytes of a row].

    Returns:
        int32 [outputs].
    """
    whole = np.zeros(weight.shape[1:], np.int32)
    for digit in weight:
        whole = (whole << DIGIT_BITS) + digit
    lacking: npt.NDArray[Any] = isa.dot_less * whole.sum(axis=-1)
    return lacking.astype(np.int32)


def tiled_weight(isa: Isa, shape: ByteLinearShape, weight: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Weights as the kernel reads them.

    Args:
        isa: Instruction set, with the register tile of the kernel.
        shape: Geometry.
        weight: int8 [digits, outputs, bytes of a row].
    """
    if uses_byte_tiles(isa, shape):
        return tiles_of_weight(shape, weight)
    _, widths = blocks_of(isa, shape.rows, shape.outputs)
    group, depth = _group(isa), _depth(isa, shape)
    if not isa.dot_bytes and shape.digits > 1:
        weight = (weight[:1].astype(np.int16) << DIGIT_BITS) + weight[1:]
    padded = np.zeros((len(weight), sum(widths), depth), weight.dtype)
    padded[:, : shape.outputs, : weight.shape[2]] = weight
    blocks = [
        block.reshape(len(weight), -1, depth // group, group).transpose(0, 2, 1, 3).reshape(-1)
        for block in np.split(padded, np.cumsum(widths)[:-1], axis=1)
    ]
    return np.concatenate(blocks)


def byte_linear_kernel(symbol: str, isa: Isa, shape: ByteLinearShape) -> Kernel:
    """Build `(scale * fp32(x @ weight.T) + bias) + start`, each operation rounded on its own.

    Arguments of the C function: x (uint8), corners [rows] and places [runs] (int32), or the places
    of each row [rows, runs] where they are not alike, weight, shift [outputs in whole vectors]
    (int32) where there is one, scale and bias [outputs in whole vectors], start [prefix + rows,
    stride], or [prefix, stride] where nothing is added by row, if there is any; out [prefix + rows,
    stride], begin, end. The shift is added to the sums, `made_up` in it.

    Args:
        symbol: Name of the C function.
        isa: Instruction set.
        shape: Geometry; a row has at most `LONGEST_ROW` bytes.

    Returns:
        The kernel. Its tasks are tiles of rows; the last one overlaps the one before rather than
        run over.
    """
    if uses_byte_tiles(isa, shape):
        return byte_tiles_kernel(symbol, isa, shape)
    emitter = Emitter(symbol)
    height, widths = blocks_of(isa, shape.rows, shape.outputs)
    tiles = -(-shape.rows // height)
    with emitter.open() as e:
        body = _Body(e, isa, shape, height)
        full, group = widths.count(widths[0]), min(body.together, tiles)
        held = e.local(body.held, group * body.tile_size)
        body.tiles.put_in_front(body.start)
        with e.loop(0, T.floordiv(e.end - e.begin + (group - 1), T.int32(group))) as number:
            first = e.let(e.begin + number * group)
            last = e.let(T.min(first + group, e.end))
            with e.loop(first, last) as task:
                body.gather(held, task, (task - first) * body.tile_size)
            with e.loop(0, full) as block, e.loop(first, last) as task:
                body.tile(held, task, (task - first) * body.tile_size, block, widths, widths[0])
            with e.loop(first, last) as task:
                if full < len(widths):
                    at = (task - first) * body.tile_size
                    body.tile(held, task, at, T.int32(full), widths, widths[-1])
                body.tiles.clear(body.tiles.rows(task))
    return emitter.kernel(tiles)


class _Body(ByteOperands):
    """Emits tiles of vectors.

    Attributes:
        tile_size: Gathered bytes of a tile.
        together: Tiles that are gathered at once.
    """

    def __init__(self, emitter: Emitter, isa: Isa, shape: ByteLinearShape, height: int) -> None:
        super().__init__(emitter, isa, shape, height, _depth(isa, shape))
        self.group = _group(isa)
        self.steps = shape.digits if isa.dot_bytes else 1
        self.tile_size = height * self.depth
        self.together = max(1, _ON_STACK // (self.tile_size * np.dtype(self.held).itemsize))

    def gather(self, held: Any, task: Any, at: Any) -> None:
        """Lay the bytes of a tile row by row."""
        e, shape = self.emitter, self.shape
        for r, row in enumerate(self.tiles.rows(task)):
            self.gather_row(held, row, at + r * self.depth, _COPIED)
            for k in range(shape.runs * shape.length, self.depth):
                e.store(held, at + r * self.depth + k, e.constant(self.held, 0))

    def tile(
        self, held: Any, task: Any, at: Any, block: Any, widths: list[int], width: int
    ) -> None:
        """All sums of a tile, and what becomes of them."""
        e, isa, height = self.emitter, self.isa, self.height
        lanes, columns = isa.float_lanes, range(0, width, isa.float_lanes)
        slots = [(r, column) for r in range(height) for column in columns]
        sums = e.local("int32", height * width)

        def shift(column: int) -> Any:
            if not self.shape.shifted:
                return e.constant("int32", 0, lanes)
            return e.load(self.shift, block * widths[0] + column, lanes)

        for r, c in slots:
            begun = shift(c) if self.steps == 1 else e.constant("int32", 0, lanes)
            e.store(sums, r * width + c, begun, lanes)
        weights = self.steps * self.depth
        start = e.let(block * (weights * widths[0]))
        for step in range(self.steps):
            if step:
                for r, c in slots:
                    value = e.load(sums, r * width + c, lanes)
                    factor = e.constant("int32", 1 << DIGIT_BITS, lanes)
                    value = e.let(value * factor)
                    e.store(sums, r * width + c, value + shift(c), lanes)
            self._sum(sums, held, at, start + step * self.depth * width, width)
        self._finish(sums, task, block * widths[0], width, slots)

    def _sum(self, sums: Any, held: Any, at: Any, start: Any, width: int) -> None:
        """Add the products of a digit."""
        e, isa = self.emitter, self.isa
        # In 64 bits and out of memory: LLVM then adds to pointers, and TVM does not narrow them.
        bases = e.local("int64", self.height)
        for r in range(self.height):
            e.store(bases, r, e.cast("int64", at + r * self.depth))
        bases = [e.let(bases[r]) for r in range(self.height)]
        group, loaded = self.group, isa.float_load
        together = group * loaded
        with e.loop(0, self.depth // together) as k:
            places = [base + k * together for base in bases]
            if loaded > 1:
                values = [e.let(self._numbers(held, place, together)) for place in places]
            for part in range(loaded):
                first = e.let(start + (k * loaded + part) * (width * group))
                weights = [self._weights(first, c) for c in range(0, width, isa.float_lanes)]
                for r, place in enumerate(places):
                    if loaded > 1:
                        one = tirx.Shuffle([values[r]], [T.int32(part)] * isa.float_lanes)
                    else:
                        number = self._numbers(held, place, together)
                        one = e.splat(e.let(number) if group > 1 else number, isa.float_lanes)
                    self._add(sums, r * width, e.let(one), weights)

    def _numbers(self, held: Any, place: Any, count: int) -> Any:
        """Gathered bytes as what is put into every lane: a group of them in 32 bits, or one."""
        value = self.emitter.load(held, place, count)
        if self.group == 1:
            return value
        groups = count // self.group
        return T.reinterpret("int32" if groups == 1 else f"int32x{groups}", value)

    def _weights(self, first: Any, column: int) -> Any:
        """Weights of a vector of outputs."""
        e, count = self.emitter, self.isa.float_lanes * self.group
        value = e.load(self.weight, first + column * self.group, count)
        narrow = self.weight.dtype == "int8" and not self.isa.dot_bytes
        return e.let(e.cast("int16", value, count) if narrow else value)

    def _add(self, sums: Any, first: int, value: Any, weights: list[Any]) -> None:
        """Add products of the bytes of a row, in every lane, to its sums."""
        e, isa, lanes = self.emitter, self.isa, self.isa.float_lanes
        for number, weight in enumerate(weights):
            slot = first + number * lanes
            before = e.load(sums, slot, lanes)
            if isa.dot_bytes:
                bytes_ = T.reinterpret(f"uint8x{4 * lanes}", value)
                # ARM takes a lane of the last operand.
                operands = (weight, bytes_) if isa.dot_less else (bytes_, weight)
                after = T.call_llvm_pure_intrin(f"int32x{lanes}", isa.dot_bytes, before, *operands)
            elif isa.dot_words:
                words = T.reinterpret(f"int16x{2 * lanes}", value)
                after = before + T.call_llvm_pure_intrin(
                    f"int32x{lanes}", isa.dot_words, words, weight
                )
            else:
                after = before + e.cast("int32", value, lanes) * e.cast("int32", weight, lanes)
            e.store(sums, slot, after, lanes)

    def _finish(
        self, sums: Any, task: Any, column: Any, width: int, slots: list[tuple[int, int]]
    ) -> None:
        e, lanes = self.emitter, self.isa.float_lanes
        rows = self.tiles.rows(task)
        columns = range(0, width, lanes)
        scales = [e.let(e.load(self.scale, column + c, lanes)) for c in columns]
        biases = [e.let(e.load(self.bias, column + c, lanes)) for c in columns]
        for r, c in slots:
            ends = scales[c // lanes], biases[c // lanes]
            self.finish(e.load(sums, r * width + c, lanes), rows[r], column + c, ends)
