"""Binary linear kernels: products whose epilogue leaves bits, floats, or the residual stream.

Instruction set: any. Tile: Isa.row_tile x Isa.lane_tile for popcounts, 32 x 32 for AMX, one row for
bit slices. Layouts: rows (or their signs, for AMX) and lanes (or slices) of vitc.targets.packing.

The vector lanes hold outputs (a linear layer: activations are broadcast, weights fill the lanes) or
positions (the spatial interaction branch: weights are broadcast, activations fill the lanes). The
epilogues (vitc.targets.kernels.epilogue) do not know which engine made their sums.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

from tvm.script.ir_builder import tirx as T

from vitc.targets.isa import Isa
from vitc.targets.kernels.amx_tile import (
    BLOCK,
    AmxProduct,
    BlockEpilogue,
    fits_panel,
    product_work,
)
from vitc.targets.kernels.emitter import HALF, Emitter, Kernel
from vitc.targets.kernels.epilogue import (
    Columns,
    Constants,
    Keys,
    Lanes,
    Residual,
    Rows,
    Scaled,
    finish_all,
)
from vitc.targets.kernels.popcount_tile import PopcountTile, nibble_table
from vitc.targets.kernels.slices import slice_work
from vitc.targets.kernels.slices_across import slices_product
from vitc.targets.layouts.signs import TILE_ROWS
from vitc.targets.packing import ROW_PADDING, WORD, Axis, round_up

__all__ = [
    "LinearShape",
    "counted_rows",
    "float_kernel",
    "residual_kernel",
    "scale_factor",
    "threshold_kernel",
    "tiles_pay",
    "uses_tiles",
]

_LEAST: Final = 128
"""Bits of a row, and lanes, with fewer of which AMX tiles take longer than vectors: for a short row
they multiply padding, and few lanes pay for making it signs."""

_BLOCK_ROWS = BLOCK * TILE_ROWS
_BLOCK_LANES = BLOCK * HALF


@dataclass(frozen=True)
class LinearShape:
    """Geometry of a binary matrix product.

    Attributes:
        rows: Rows of the broadcast operand.
        lanes: Vectors in the lanes operand (outputs, or positions in the transposed form); for AMX
            a multiple of 32.
        k: True contracted length.
        elements: Elements of one packed vector, padding included.
        depth: For bit slices, bits of a packed vector without the padding behind them; 0 for
            popcounts and tiles.
    """

    rows: int
    lanes: int
    k: int
    elements: int
    depth: int = field(default=0, repr=False)

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


class _Epilogue(Protocol):
    @property
    def constants(self) -> Constants: ...

    def finish(self, row: Any, lanes: Lanes, value: Any) -> None: ...


def uses_tiles(isa: Isa, elements: int) -> bool:
    """Whether the kernels of an instruction set run a product of so many elements on AMX tiles.

    Their broadcast operand is then the signs of the rows (vitc.targets.layouts.signs).
    """
    return isa.amx and fits_panel(elements)


def tiles_pay(lanes: int, length: int) -> bool:
    """Whether AMX tiles multiply so many lanes, of rows of a length, in less time than vectors."""
    return min(lanes, length) >= _LEAST


def scale_factor(isa: Isa, elements: int) -> int:
    """Factor that the `scale` argument of a kernel contains."""
    return 1 if uses_tiles(isa, elements) else -2


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
    windows: int = 1,
    period: int = 0,
) -> Kernel:
    """Build product + threshold.

    Arguments of the C function: broadcast operand, lanes operand, scale times `scale_factor`,
    offset, upper, [lower,] output, begin, end. `scale` and `offset` follow the outputs, `upper` and
    `lower` the positions: [groups, positions] if `group` is given. Rows are padded to
    `ROW_PADDING`.

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
        windows: Groups of as many rows, whose "keys" and "columns" are matrices of their own;
            "columns" of more than one are no matter of AMX. Of no matter if transposed: the lanes
            of a window are lane blocks of their own anyway.
        period: Positions of a window, where all windows have the same constants of positions; 0 for
            one window.

    Returns:
        The kernel. Its tasks are row tiles; lane tiles for "columns"; panels for AMX.
    """
    emitter = Emitter(symbol)
    positions = ("upper", "lower") if two_sided else ("upper",)
    names = {
        "rows_in": _row_element(isa, shape),
        "lanes_in": _lane_element(isa, shape),
        **dict.fromkeys(("scale", "offset", *positions), "float32"),
        "out": {
            "rows": "uint16",
            "keys": "uint16" if isa.element_bits == WORD else "uint8",
            "columns": isa.element,
        }[output],
    }
    with emitter.open() as e:
        buffers = dict(zip(names, e.pointers(**names), strict=True))
        stride = round_up(period or shape.rows, ROW_PADDING)
        constants = Constants(
            e, buffers, ("scale", "offset"), positions, transposed, group, stride, period
        )
        if output == "columns":
            tasks = _columns(e, isa, shape, constants, 1 if transposed else windows)
        elif output == "keys":
            heads = head or Axis(shape.lanes)
            keys = Keys(constants, isa, shape.rows // windows, heads, windows)
            tasks = _along_lanes(e, isa, shape, keys)
        else:
            rows = Rows(constants, round_up(shape.lanes, WORD) // HALF)
            tasks = _along_lanes(e, isa, shape, rows)
    return emitter.kernel(tasks, **_work(isa, shape))


def residual_kernel(
    symbol: str,
    isa: Isa,
    shape: LinearShape,
    *,
    transposed: bool,
    gain: bool,
    stride: int,
    windows: int = 1,
    period: int = 0,
    ordered: bool = False,
) -> Kernel:
    """Build product + scale + bias + residual: `out = residual + gain * (scale * I + bias)`, fp32.

    Arguments of the C function: broadcast operand, lanes operand, scale times `scale_factor`, bias,
    [gain,] [order (int32),] residual, output, begin, end. The output may lie over the residual: an
    element of it is read once, right before it is written.

    Args:
        symbol: Name of the C function.
        isa: Instruction set.
        shape: Geometry.
        transposed: Positions fill the lanes and outputs are broadcast (the spatial interaction
            branch), so that the product is transposed as it is written.
        gain: Whether positions have a gain.
        stride: Floats from one row of the residual stream to the next.
        windows: Groups of as many positions; if transposed, they follow one another, `stride` lanes
            each.
        period: Positions of a window, where all windows have the same gains; 0 for one window.
        ordered: Whether `order` holds the row of the stream that each row of the product is added
            to, window by window; padded to `ROW_PADDING` with rows behind the last.

    Returns:
        The kernel. Its tasks are row tiles, or panels for AMX.
    """
    emitter = Emitter(symbol)
    positions = ("gain",) if gain else ()
    names = {
        "rows_in": _row_element(isa, shape),
        "lanes_in": _lane_element(isa, shape),
        **dict.fromkeys(("scale", "bias", *positions), "float32"),
        **({"order": "int32"} if ordered else {}),
        **dict.fromkeys(("residual", "out"), "float32"),
    }
    with emitter.open() as e:
        buffers = dict(zip(names, e.pointers(**names), strict=True))
        constants = Constants(e, buffers, ("scale", "bias"), positions, transposed, period=period)
        rows = shape.rows if transposed and windows > 1 else 0
        tasks = _along_lanes(e, isa, shape, Residual(constants, stride, rows))
    return emitter.kernel(tasks, **_work(isa, shape))


def float_kernel(symbol: str, isa: Isa, shape: LinearShape, *, stride: int) -> Kernel:
    """Build product + scale + bias: `out = scale * I + bias`, fp32.

    Arguments of the C function: rows of bits, lanes operand, scale times `scale_factor`, bias,
    output, begin, end.

    Args:
        symbol: Name of the C function.
        isa: Instruction set.
        shape: Geometry.
        stride: Floats from one row of the output to the next.

    Returns:
        The kernel. Its tasks are row tiles, or panels for AMX.
    """
    emitter = Emitter(symbol)
    names = {
        "rows_in": _row_element(isa, shape),
        "lanes_in": _lane_element(isa, shape),
        **dict.fromkeys(("scale", "bias", "out"), "float32"),
    }
    with emitter.open() as e:
        buffers = dict(zip(names, e.pointers(**names), strict=True))
        constants = Constants(e, buffers, ("scale", "bias"), (), transposed=False)
        tasks = _along_lanes(e, isa, shape, Scaled(constants, stride))
    return emitter.kernel(tasks, **_work(isa, shape))


def _work(isa: Isa, shape: LinearShape) -> dict[str, int]:
    if shape.depth:
        return slice_work(isa, shape.rows, shape.lanes, shape.depth)
    tiles = uses_tiles(isa, shape.elements)
    return product_work(shape.rows, shape.lanes, shape.elements) if tiles else {}


def _row_element(isa: Isa, shape: LinearShape) -> str:
    if shape.depth:
        return "uint32"
    return "int8" if uses_tiles(isa, shape.elements) else isa.element


def _lane_element(isa: Isa, shape: LinearShape) -> str:
    return "uint16" if shape.depth else isa.element


def _along_lanes(e: Emitter, isa: Isa, shape: LinearShape, epilogue: _Epilogue) -> int:
    """Emit a product each row of which is finished by itself; returns the number of tasks."""
    if uses_tiles(isa, shape.elements):
        return _panels(e, shape, epilogue.constants, lambda lanes, _: _RowByRow(epilogue, lanes))
    if shape.depth:
        return _slices(e, isa, shape, epilogue)
    constants = epilogue.constants
    operands = (constants.buffers["rows_in"], constants.buffers["lanes_in"])

    def finish(row: Any, lane: Any, value: Any) -> None:
        epilogue.finish(row, constants.lanes(lane), value)

    tiles = (e.begin, e.end)
    counted_rows(e, isa, shape, operands, tiles, lambda tile: tile * isa.row_tile, finish)
    return shape.row_tiles(isa)


def counted_rows(
    e: Emitter,
    isa: Isa,
    shape: LinearShape,
    operands: tuple[Any, Any],
    tiles: tuple[Any, Any],
    first_row: Callable[[Any], Any],
    finish: Callable[[Any, Any, Any], None],
) -> None:
    """Emit a product by popcounts, each row of which is finished by itself.

    Args:
        e: Where the code goes.
        isa: Instruction set.
        shape: Geometry.
        operands: Buffers of rows and of lanes.
        tiles: First tile of rows, and the one behind the last.
        first_row: First row of a tile.
        finish: Emits what becomes of 16 lanes, of the row, the first lane and the sums minus k / 2.
    """
    table = nibble_table(e, isa)
    tile, halves = shape.lane_tile(isa), isa.lanes // HALF
    with (
        e.loop(0, shape.blocks(isa) // tile) as lane_tile,
        e.loop(*tiles) as row_tile,
    ):
        start = e.let(first_row(row_tile))
        first_block = e.let(lane_tile * tile)
        sums = PopcountTile(e, isa, isa.row_tile, tile, shape.elements, table)
        sums.emit(
            operands[0],
            lambda r: (start + r) * shape.elements,
            operands[1],
            lambda b: (first_block + b) * (shape.elements * isa.lanes),
        )
        # Blocks wider than a word may end behind the lanes that the output has room for.
        room = round_up(shape.lanes, WORD) - (shape.blocks(isa) - 1) * isa.lanes
        for r in range(isa.row_tile):
            for b in range(tile):
                for half in range(halves):
                    lane = e.let((first_block + b) * isa.lanes + half * HALF)
                    value = sums.centred(r, b, half, shape.k)
                    if b < tile - 1 or half * HALF < room:
                        finish(start + r, lane, value)
                        continue
                    with T.If(lane < shape.lanes), T.Then():
                        finish(start + r, lane, value)


def _slices(e: Emitter, isa: Isa, shape: LinearShape, epilogue: _Epilogue) -> int:
    """Emit a product by bit slices; returns the number of tasks, which are `ROW_PADDING` rows."""
    constants = epilogue.constants
    words = shape.elements * isa.element_bits // WORD
    turned = constants.transposed
    product = slices_product(e, isa, shape.lanes, shape.depth, words, turned=turned)
    first = e.let(e.begin * ROW_PADDING)
    last = e.let(T.min(e.end * ROW_PADDING, shape.rows))

    def finish(row: Any, lane: Any, sums: Sequence[Any]) -> None:
        finish_all(epilogue, row, lane, [product.centred(each, shape.k) for each in sums])

    rows, lanes = constants.buffers["rows_in"], constants.buffers["lanes_in"]
    product.emit(rows, lanes, (first, last), [(shape.lanes, finish)])
    return round_up(shape.rows, ROW_PADDING) // ROW_PADDING


def _columns(e: Emitter, isa: Isa, shape: LinearShape, constants: Constants, windows: int) -> int:
    """Emit a product whose bits run along the rows; returns the number of tasks."""
    rows = shape.rows // windows
    out_elements = round_up(rows, WORD) // isa.element_bits
    if uses_tiles(isa, shape.elements):
        columns = Columns(constants, isa, out_elements, BLOCK)
        return _panels(e, shape, constants, lambda *where: _Elements(columns, *where))
    buffers, table = constants.buffers, nibble_table(e, isa)
    tile, halves = shape.lane_tile(isa), isa.lanes // HALF
    bits = isa.element_bits
    row_tile = min(isa.row_tile, bits)
    used = -(-rows // bits)
    epilogue = Columns(constants, isa, out_elements, tile)
    lane_tiles = shape.blocks(isa) // tile
    with e.loop(e.begin, e.end) as task:
        written = first_block = e.let(task * tile)
        before: Any = None
        if windows > 1:
            window, lane_tile = e.split(task, lane_tiles)
            first_block, before = e.let(lane_tile * tile), e.let(window * rows)
        epilogue.clear(written, used)
        with e.loop(0, used) as element:
            epilogue.begin()
            left = rows - element * bits
            tiles = T.floordiv(T.min(left, bits) + (row_tile - 1), row_tile)
            with e.loop(0, tiles) as step:
                first_row = e.let(element * bits + step * row_tile)
                start = first_row if before is None else e.let(before + first_row)
                sums = PopcountTile(e, isa, row_tile, tile, shape.elements, table)
                sums.emit(
                    buffers["rows_in"],
                    lambda r: (start + r) * shape.elements,
                    buffers["lanes_in"],
                    lambda b: (first_block + b) * (shape.elements * isa.lanes),
                )
                for r in range(row_tile):
                    one = e.let(
                        T.shift_left(
                            e.constant(isa.element, 1), e.cast(isa.element, step * row_tile + r)
                        )
                    )
                    inside = e.let(T.Select(first_row + r < rows, one, e.constant(isa.element, 0)))
                    for b in range(tile):
                        for half in range(halves):
                            slot = b * isa.lanes + half * HALF
                            lane = e.let((first_block + b) * isa.lanes + half * HALF)
                            value = sums.centred(r, b, half, shape.k)
                            lanes = constants.lanes(lane)
                            epilogue.finish(first_row + r, lanes, value, slot, inside)
            epilogue.end(written, element)
    return windows * lane_tiles


def _panels(
    e: Emitter,
    shape: LinearShape,
    constants: Constants,
    epilogue: Callable[[Sequence[Lanes], Any], BlockEpilogue],
) -> int:
    """Emit a product on AMX tiles; returns the number of tasks, which are panels of lanes."""
    buffers = constants.buffers
    product = AmxProduct(e, shape.rows, shape.elements)
    with e.loop(e.begin, e.end) as panel:
        product.expand(buffers["lanes_in"], panel * (BLOCK * shape.elements * HALF))
        lanes = [
            constants.lanes(e.let(panel * _BLOCK_LANES + tile * HALF), ahead=True)
            for tile in range(BLOCK)
        ]
        product.multiply(buffers["rows_in"], epilogue(lanes, panel))
    product.release()
    return shape.lanes // _BLOCK_LANES


@dataclass(frozen=True)
class _RowByRow:
    """Finishes each row of an AMX block by itself."""

    epilogue: _Epilogue
    lanes: Sequence[Lanes]

    def begin(self) -> None:
        pass

    def finish(self, block: Any, row: int, tile: int, value: Any) -> None:
        self.epilogue.finish(block * _BLOCK_ROWS + row, self.lanes[tile], value)

    def end(self, block: Any) -> None:
        pass


@dataclass(frozen=True)
class _Elements:
    """Fills the elements of an AMX block, whose rows are as many as their bits."""

    columns: Columns
    lanes: Sequence[Lanes]
    panel: Any

    def begin(self) -> None:
        self.columns.begin()

    def finish(self, block: Any, row: int, tile: int, value: Any) -> None:
        bit = T.uint32(1 << row)
        where = block * _BLOCK_ROWS + row
        self.columns.finish(where, self.lanes[tile], value, tile * HALF, bit)

    def end(self, block: Any) -> None:
        self.columns.end(self.panel * BLOCK, block)
