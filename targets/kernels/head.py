"""Classifier: an fp32 matrix-vector product on one token, its batch norm folded in.

Instruction set: any with fp32 vectors. Tile: HEAD_TILE classes. Layout: weights [classes / tile, C,
tile].
"""

from __future__ import annotations

from vitc.targets.kernels.emitter import Emitter, Kernel

__all__ = ["HEAD_TILE", "head_kernel"]

HEAD_TILE = 64
"""Classes that one task computes; several vectors hide the latency of the additions."""

_LANES = 16


def head_kernel(symbol: str, *, token: int, width: int, stride: int, classes: int) -> Kernel:
    """Build the classifier kernel.

    Arguments of the C function: stream [tokens, stride], weights, bias, out (classes padded to
    HEAD_TILE), begin, end.

    Args:
        symbol: Name of the C function.
        token: Index of the token that is classified.
        width: Channels.
        stride: Floats from one token to the next.
        classes: Number of classes.

    Returns:
        The kernel. Its tasks are tiles of classes.
    """
    emitter = Emitter(symbol)
    tasks = -(-classes // HEAD_TILE)
    with emitter.open() as e:
        stream, weight, bias, out = e.pointers(
            stream="float32", weight="float32", bias="float32", out="float32"
        )
        with e.loop(e.begin, e.end) as task:
            sums = e.local("float32", HEAD_TILE)
            for slot in range(0, HEAD_TILE, _LANES):
                e.store(sums, slot, e.load(bias, task * HEAD_TILE + slot, _LANES), _LANES)
            with e.loop(0, width) as channel:
                value = e.let(e.splat(stream[token * stride + channel], _LANES))
                row = e.let((task * width + channel) * HEAD_TILE)
                for slot in range(0, HEAD_TILE, _LANES):
                    product = value * e.load(weight, row + slot, _LANES)
                    e.store(sums, slot, e.load(sums, slot, _LANES) + product, _LANES)
            for slot in range(0, HEAD_TILE, _LANES):
                e.store(out, task * HEAD_TILE + slot, e.load(sums, slot, _LANES), _LANES)
    return emitter.kernel(tasks)
