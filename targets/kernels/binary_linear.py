"""Binary linear kernels: popcount tiles whose epilogue leaves bits, or the residual stream.

Instruction set: any. Tile: Isa.row_tile x Isa.lane_tile. Layouts: rows and lanes of
vitc.targets.layouts.

With p = popcount(a XOR w) and I = K - 2p, the threshold `scale * I >= offset + upper` is evaluated
as `(p - K/2) * (-2 scale) >= offset + upper`. p - K/2 is exact in fp32 and a factor of -2 does not
round, so both sides have the bits of the dialect's expression. Neither side multiplies and adds, so
nothing can be contracted.

The vector lanes hold outputs (a linear layer: activations are broadcast, weights fill the lanes) or
positions (the spatial interaction branch: weights are broadcast, activations fill the lanes). Where
bits must run along the rows of a tile, one bit a row is shifted into the lane's element; no bit
matrix is ever transposed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from tvm.script.ir_builder import tirx as T

from vitc.targets.isa import Isa
from vitc.targets.kernels.emitter import HALF, Emitter, Kernel, mask_bits
from vitc.targets.kernels.popcount_tile import PopcountTile, nibble_table
from vitc.targets.layouts import ROW_PADDING, WORD, Axis, round_up

__all__ = ["LinearShape", "residual_kernel", "threshold_kernel"]


@dataclass(frozen=True)
class LinearShape:
    """Geometry of a binary matrix product.

    Attributes:
        rows: Rows of the broadcast operand.
        lanes: Vectors in the lanes operand (outputs, or positions in the transposed form).
        k: True contracted length.
        elements: Elements of one packed vector, padding included.
    """

    rows: int
    lanes: int
    k: int
    elements: int

    def blocks(self, isa: Isa) -> int:
        """Lane blocks, the last one padded."""
        return round_up(self.lanes, isa.lanes) // isa.lanes

    def lane_tile(self, isa: Isa) -> int:
        """Largest tile of lane blocks that leaves no remainder."""
        blocks = self.blocks(isa)
        return next(t for t in range(isa.lane_tile, 0, -1) if blocks % t == 0)

    def row_tiles(self, isa: Isa) -> int:
        """Row tiles, the last one padded."""
        return round_up(self.rows, isa.row_tile) // isa.row_tile


def _decide(
    e: Emitter, popcount: Any, shape: LinearShape, scale: Any, offset: Any, upper: Any, lower: Any
) -> Any:
    """Vector of booleans: the dialect's threshold on `HALF` popcounts."""
    centred = e.cast("float32", popcount, HALF) - e.constant("float32", shape.k / 2, HALF)
    value = centred * scale
    above = value >= offset + upper
    if lower is None:
        return above
    return T.bitwise_or(above, value <= offset + lower)


def threshold_kernel(
    symbol: str,
    isa: Isa,
    shape: LinearShape,
    *,
    output: Literal["rows", "keys", "columns"],
    transposed: bool = False,
    two_sided: bool = False,
    group: Axis | None = None,
    head: Axis | None = None,
) -> Kernel:
    """Build popcount + threshold.

    Arguments of the C function: broadcast operand, lanes operand, scale times -2, offset, upper,
    [lower,] output, begin, end. `scale` and `offset` follow the outputs, `upper` and `lower` the
    positions: [groups, positions] if `group` is given. Rows are padded to `ROW_PADDING`.

    Args:
        symbol: Name of the C function.
        isa: Instruction set.
        shape: Geometry.
        output: Bits along the lanes in rows layout; the same in lanes layout, a group being a head
            ("keys"); or bits along the rows in lanes layout ("columns").
        transposed: Positions fill the lanes and outputs are broadcast.
        two_sided: Whether the lower threshold is used.
        group: Outputs by group, when `upper` differs by group of outputs.
        head: Outputs by head, for "keys".

    Returns:
        The kernel. Its tasks are row tiles, or lane tiles for "columns".
    """
    emitter = Emitter(symbol)
    names = {
        "rows_in": isa.element,
        "lanes_in": isa.element,
        "scale": "float32",
        "offset": "float32",
        "upper": "float32",
    }
    if two_sided:
        names["lower"] = "float32"
    names["out"] = {
        "rows": "uint16",
        "keys": "uint16" if isa.element_bits == 32 else "uint8",
        "columns": isa.element,
    }[output]
    with emitter.open() as e:
        buffers = dict(zip(names, e.pointers(**names), strict=True))
        table = nibble_table(e, isa)
        if output == "columns":
            tasks = _columns(e, isa, shape, buffers, table, transposed, group)
        else:
            keys = (head or Axis(shape.lanes)) if output == "keys" else None
            tasks = _along_lanes(e, isa, shape, buffers, table, transposed, group, keys)
    return emitter.kernel(tasks)


def _operands(
    e: Emitter,
    buffers: dict[str, Any],
    *,
    row: Any,
    lane: Any,
    transposed: bool,
    position_base: Any,
) -> tuple[Any, Any, Any, Any]:
    """Load scale, offset, upper and lower of `HALF` lanes of one row."""

    def vector(name: str, index: Any, *, on_lanes: bool) -> Any:
        if on_lanes:
            return e.load(buffers[name], index, HALF)
        return e.splat(buffers[name][index], HALF)

    outputs_on_lanes = not transposed
    output_index = lane if outputs_on_lanes else row
    position_index = position_base + (row if outputs_on_lanes else lane)
    scale = vector("scale", output_index, on_lanes=outputs_on_lanes)
    offset = vector("offset", output_index, on_lanes=outputs_on_lanes)
    upper = vector("upper", position_index, on_lanes=not outputs_on_lanes)
    lower = None
    if "lower" in buffers:
        lower = vector("lower", position_index, on_lanes=not outputs_on_lanes)
    return scale, offset, upper, lower


def _along_lanes(
    e: Emitter,
    isa: Isa,
    shape: LinearShape,
    buffers: dict[str, Any],
    table: Any,
    transposed: bool,
    group: Axis | None,
    keys: Axis | None,
) -> int:
    tile, halves = shape.lane_tile(isa), isa.lanes // HALF
    row_stride = round_up(shape.rows, ROW_PADDING)
    out_halves = round_up(shape.lanes, WORD) // HALF
    with (
        e.loop(0, shape.blocks(isa) // tile) as lane_tile,
        e.loop(e.begin, e.end) as row_tile,
    ):
        first_row = e.let(row_tile * isa.row_tile)
        first_block = e.let(lane_tile * tile)
        sums = PopcountTile(e, isa, isa.row_tile, tile, shape.elements, table)
        sums.emit(
            buffers["rows_in"],
            lambda r: (first_row + r) * shape.elements,
            buffers["lanes_in"],
            lambda b: (first_block + b) * (shape.elements * isa.lanes),
        )
        for r in range(isa.row_tile):
            for b in range(tile):
                for half in range(halves):
                    lane = e.let((first_block + b) * isa.lanes + half * HALF)
                    base: Any = 0
                    if group is not None:
                        base = T.floordiv(lane, group.padded_group) * row_stride
                    constants = _operands(
                        e,
                        buffers,
                        row=first_row + r,
                        lane=lane,
                        transposed=transposed,
                        position_base=base,
                    )
                    bits = e.let(mask_bits(_decide(e, sums.sums(r, b, half), shape, *constants)))
                    if keys is None:
                        index = (first_row + r) * out_halves + T.floordiv(lane, HALF)
                        e.store(buffers["out"], index, bits)
                    else:
                        _store_key(e, isa, shape, buffers["out"], first_row + r, lane, bits, keys)
    return shape.row_tiles(isa)


def _store_key(
    e: Emitter, isa: Isa, shape: LinearShape, out: Any, row: Any, lane: Any, bits: Any, head: Axis
) -> None:
    """Store 16 bits of row `row` (a key) where the lanes layout of its head wants them."""
    key_blocks = round_up(shape.rows, isa.lanes) // isa.lanes
    elements = head.padded_group // isa.element_bits
    in_head = T.floormod(lane, head.padded_group)
    block = T.floordiv(lane, head.padded_group) * key_blocks + T.floordiv(row, isa.lanes)
    slot = T.floormod(row, isa.lanes)
    if isa.element_bits == 32:
        word = block * elements + T.floordiv(in_head, 32)
        half = T.floordiv(T.floormod(in_head, 32), HALF)
        e.store(out, (word * isa.lanes + slot) * 2 + half, bits)
        return
    for byte in range(2):
        element = block * elements + T.floordiv(in_head, 8) + byte
        value = T.bitwise_and(T.shift_right(bits, T.uint16(8 * byte)), T.uint16(255))
        e.store(out, element * isa.lanes + slot, e.cast("uint8", value))


def _columns(
    e: Emitter,
    isa: Isa,
    shape: LinearShape,
    buffers: dict[str, Any],
    table: Any,
    transposed: bool,
    group: Axis | None,
) -> int:
    tile, halves = shape.lane_tile(isa), isa.lanes // HALF
    bits = isa.element_bits
    row_tile = min(isa.row_tile, bits)
    out_elements = round_up(shape.rows, WORD) // bits
    row_stride = round_up(shape.rows, ROW_PADDING)
    used = -(-shape.rows // bits)
    with e.loop(e.begin, e.end) as lane_tile:
        first_block = e.let(lane_tile * tile)
        for element in range(used, out_elements):
            for b in range(tile):
                index = ((first_block + b) * out_elements + element) * isa.lanes
                e.store(buffers["out"], index, e.constant(isa.element, 0, isa.lanes), isa.lanes)
        with e.loop(0, used) as element:
            words = e.local(isa.element, tile * isa.lanes)
            for b in range(tile):
                e.store(words, b * isa.lanes, e.constant(isa.element, 0, isa.lanes), isa.lanes)
            left = shape.rows - element * bits
            tiles = T.floordiv(T.min(left, bits) + (row_tile - 1), row_tile)
            with e.loop(0, tiles) as step:
                first_row = e.let(element * bits + step * row_tile)
                sums = PopcountTile(e, isa, row_tile, tile, shape.elements, table)
                sums.emit(
                    buffers["rows_in"],
                    lambda r: (first_row + r) * shape.elements,
                    buffers["lanes_in"],
                    lambda b: (first_block + b) * (shape.elements * isa.lanes),
                )
                for r in range(row_tile):
                    one = e.let(
                        T.shift_left(
                            e.constant(isa.element, 1), e.cast(isa.element, step * row_tile + r)
                        )
                    )
                    inside = e.let(
                        T.Select(first_row + r < shape.rows, one, e.constant(isa.element, 0))
                    )
                    for b in range(tile):
                        for half in range(halves):
                            lane = e.let((first_block + b) * isa.lanes + half * HALF)
                            base: Any = 0
                            if group is not None:
                                base = T.floordiv(lane, group.padded_group) * row_stride
                            constants = _operands(
                                e,
                                buffers,
                                row=first_row + r,
                                lane=lane,
                                transposed=transposed,
                                position_base=base,
                            )
                            decided = _decide(e, sums.sums(r, b, half), shape, *constants)
                            slot = b * isa.lanes + half * HALF
                            bit = T.Select(
                                decided, e.splat(inside, HALF), e.constant(isa.element, 0, HALF)
                            )
                            e.store(words, slot, T.bitwise_or(e.load(words, slot, HALF), bit), HALF)
            for b in range(tile):
                index = ((first_block + b) * out_elements + element) * isa.lanes
                for half in range(halves):
                    part = e.load(words, b * isa.lanes + half * HALF, HALF)
                    e.store(buffers["out"], index + half * HALF, part, HALF)
    return shape.blocks(isa) // tile


def residual_kernel(
    symbol: str, isa: Isa, shape: LinearShape, *, transposed: bool, gain: bool, stride: int
) -> Kernel:
    """Build popcount + scale + bias + residual: `out = residual + gain * (scale * I + bias)`, fp32.

    Arguments of the C function: broadcast operand, lanes operand, scale times -2, bias, [gain,]
    residual, output, begin, end.

    Args:
        symbol: Name of the C function.
        isa: Instruction set.
        shape: Geometry.
        transposed: Positions fill the lanes and outputs are broadcast (the spatial interaction
            branch), so that the product is transposed as it is written.
        gain: Whether positions have a gain.
        stride: Floats from one row of the residual stream to the next.

    Returns:
        The kernel. Its tasks are row tiles.
    """
    emitter = Emitter(symbol)
    names = {"rows_in": isa.element, "lanes_in": isa.element, "scale": "float32", "bias": "float32"}
    if gain:
        names["gain"] = "float32"
    names |= {"residual": "float32", "out": "float32"}
    tile, halves = shape.lane_tile(isa), isa.lanes // HALF
    with emitter.open() as e:
        buffers = dict(zip(names, e.pointers(**names), strict=True))
        table = nibble_table(e, isa)

        def constant(name: str, row: Any, lane: Any, *, on_lanes: bool) -> Any:
            if on_lanes:
                return e.load(buffers[name], lane, HALF)
            return e.splat(buffers[name][row], HALF)

        with (
            e.loop(0, shape.blocks(isa) // tile) as lane_tile,
            e.loop(e.begin, e.end) as row_tile,
        ):
            first_row = e.let(row_tile * isa.row_tile)
            first_block = e.let(lane_tile * tile)
            sums = PopcountTile(e, isa, isa.row_tile, tile, shape.elements, table)
            sums.emit(
                buffers["rows_in"],
                lambda r: (first_row + r) * shape.elements,
                buffers["lanes_in"],
                lambda b: (first_block + b) * (shape.elements * isa.lanes),
            )
            for r in range(isa.row_tile):
                for b in range(tile):
                    for half in range(halves):
                        lane = e.let((first_block + b) * isa.lanes + half * HALF)
                        row = first_row + r
                        popcount = e.cast("float32", sums.sums(r, b, half), HALF)
                        centred = popcount - e.constant("float32", shape.k / 2, HALF)
                        scale = constant("scale", row, lane, on_lanes=not transposed)
                        bias = constant("bias", row, lane, on_lanes=not transposed)
                        value = centred * scale + bias
                        if gain:
                            value = value * constant("gain", row, lane, on_lanes=transposed)
                        index = row * stride + lane
                        value = e.load(buffers["residual"], index, HALF) + value
                        e.store(buffers["out"], index, value, HALF)
    return emitter.kernel(shape.row_tiles(isa))
