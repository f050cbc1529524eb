"""Register-only loops that show what a machine's units can do, the peaks of every fraction.

Instruction set: any. Tile: as many independent sums as hide the latency. Layout: one vector in, one
vector out.
"""

from __future__ import annotations

from tvm.script.ir_builder import tirx as T

from vitc.targets.isa import Isa
from vitc.targets.kernels.amx_tile import configure
from vitc.targets.kernels.emitter import Emitter, Kernel
from vitc.targets.kernels.popcount_tile import BYTE_STEPS
from vitc.targets.layouts.signs import TILE_BYTES, TILE_DEPTH

__all__ = ["FMA_SUMS", "POPCOUNT_SUMS", "TILE_SUMS", "fma_kernel", "popcount_kernel", "tile_kernel"]

POPCOUNT_SUMS = 8
FMA_SUMS = 12
TILE_SUMS = 4


def popcount_kernel(symbol: str, isa: Isa) -> Kernel:
    """XOR, popcount and add in registers, on `BYTE_STEPS * POPCOUNT_SUMS` vectors a task.

    Arguments of the C function: vectors [POPCOUNT_SUMS, lanes], keys [BYTE_STEPS], out [lanes],
    begin, end.
    """
    emitter = Emitter(symbol)
    lanes = isa.lanes
    with emitter.open() as e:
        vectors, keys, out = e.pointers(vectors=isa.element, keys=isa.element, out=isa.element)
        loaded = [e.let(e.load(vectors, i * lanes, lanes)) for i in range(POPCOUNT_SUMS)]
        sums = e.local(isa.element, POPCOUNT_SUMS * lanes)
        for i in range(POPCOUNT_SUMS):
            e.store(sums, i * lanes, e.constant(isa.element, 0, lanes), lanes)
        with e.loop(e.begin, e.end) as task, e.loop(0, BYTE_STEPS) as step:
            # The key changes with the task, so that no sum can be computed ahead of the loop.
            key = e.let(e.splat(keys[step] + e.cast(isa.element, task), lanes))
            for i in range(POPCOUNT_SUMS):
                count = T.popcount(T.bitwise_xor(loaded[i], key))
                e.store(sums, i * lanes, e.load(sums, i * lanes, lanes) + count, lanes)
        for i in range(1, POPCOUNT_SUMS):
            e.store(sums, 0, e.load(sums, 0, lanes) + e.load(sums, i * lanes, lanes), lanes)
        e.store(out, 0, e.load(sums, 0, lanes), lanes)
    return emitter.kernel(1)


def fma_kernel(symbol: str, isa: Isa) -> Kernel:
    """Multiply-adds in registers: one task is `FMA_SUMS` vectors of Isa.float_lanes.

    Arguments of the C function: factors [2, lanes], out [lanes], begin, end.
    """
    emitter = Emitter(symbol)
    lanes = isa.float_lanes
    with emitter.open() as e:
        factors, out = e.pointers(factors="float32", out="float32")
        factor = e.let(e.load(factors, 0, lanes))
        term = e.let(e.load(factors, lanes, lanes))
        sums = e.local("float32", FMA_SUMS * lanes)
        for i in range(FMA_SUMS):
            e.store(sums, i * lanes, term * e.constant("float32", i, lanes), lanes)
        with e.loop(e.begin, e.end):
            for i in range(FMA_SUMS):
                value = e.load(sums, i * lanes, lanes) * factor + term
                e.store(sums, i * lanes, value, lanes)
        for i in range(1, FMA_SUMS):
            e.store(sums, 0, e.load(sums, 0, lanes) + e.load(sums, i * lanes, lanes), lanes)
        e.store(out, 0, e.load(sums, 0, lanes), lanes)
    return emitter.kernel(1)


def tile_kernel(symbol: str) -> Kernel:
    """AMX products of int8 in registers: one task is `TILE_SUMS` products.

    Arguments of the C function: signs of two tiles, out [TILE_SUMS, 16, 16], begin, end.
    """
    emitter = Emitter(symbol)
    with emitter.open() as e:
        signs, out = e.pointers(signs="int8", out="int32")
        configure(e)
        left, right = TILE_SUMS, TILE_SUMS + 1
        stride = T.int64(TILE_DEPTH)
        for number, register in enumerate((left, right)):
            place = T.address_of(signs[number * TILE_BYTES])
            e.perform("llvm.x86.tileloadd64", T.uint8(register), place, stride)
        for register in range(TILE_SUMS):
            e.perform("llvm.x86.tilezero", T.uint8(register))
        with e.loop(e.begin, e.end):
            for register in range(TILE_SUMS):
                e.perform("llvm.x86.tdpbssd", T.uint8(register), T.uint8(left), T.uint8(right))
        for register in range(TILE_SUMS):
            place = T.address_of(out[register * (TILE_BYTES // 4)])
            e.perform("llvm.x86.tilestored64", T.uint8(register), place, stride)
        e.perform("llvm.x86.tilerelease")
    return emitter.kernel(1)
