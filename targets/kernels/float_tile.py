"""The step that fp32 tiles have in common: some floats of every row times their weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from vitc.targets.isa import Isa
from vitc.targets.kernels.emitter import Emitter

__all__ = ["add_products"]


def add_products(
    e: Emitter,
    isa: Isa,
    sums: Any,
    x: Any,
    places: Sequence[Any],
    weight: Any,
    start: Any,
    width: int,
    loaded: int,
) -> None:
    """Add products to the sums of a tile.

    Args:
        e: Emitter.
        isa: Instruction set.
        sums: Local array [rows, width].
        x: Buffer of the left operand.
        places: Of the first float of each row in it.
        weight: Buffer of the weights [floats of a row, width].
        start: Place of the weights of that float.
        width: Outputs of the tile, in whole vectors.
        loaded: Floats of a row, which are loaded at once.
    """
    lanes = isa.float_lanes
    values = []
    if loaded > 1:
        values = [e.let(e.load(x, place, loaded)) for place in places]
    for part in range(loaded):
        at = e.let(start + part * width)
        weights = [e.let(e.load(weight, at + column, lanes)) for column in range(0, width, lanes)]
        for r, place in enumerate(places):
            if loaded > 1:
                value = e.let(tirx.Shuffle([values[r]], [T.int32(part)] * lanes))
            else:
                value = e.let(e.splat(x[place], lanes))
            for column, factor in zip(range(0, width, lanes), weights, strict=True):
                slot = r * width + column
                e.store(sums, slot, e.load(sums, slot, lanes) + value * factor, lanes)
