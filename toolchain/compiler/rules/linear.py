"""What the rules of binary linear layers share: operands and geometry of a product.

Either outputs fill the lanes, and rows of bits are broadcast; or positions do (columns of bits),
and weights are broadcast: the spatial interaction branch, whose stream is turned.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from vitc.compiler.form import Form
from vitc.compiler.graph import Array, Op, Use, refused
from vitc.compiler.plan import Constant, Cost, Operand, Unit
from vitc.targets.isa import Isa
from vitc.targets.kernels.binary_linear import (
    LinearShape,
    scale_factor,
    tiles_pay,
    uses_tiles,
)
from vitc.targets.kernels.slices import slice_blocks, slice_vector, uses_slices
from vitc.targets.layouts import Across, Columns, Rows
from vitc.targets.packing import ROW_PADDING, WORD, Axis, round_up, to_lanes, to_rows, to_slices

if TYPE_CHECKING:
    from vitc.compiler.emit import Emission

__all__ = ["MAX_LENGTH", "Product", "ask"]

MAX_LENGTH = 65535
"""Most bits of one contraction: popcounts are summed in 16 bits."""


def ask(op: Op, isa: Isa, *, transposed: bool, across: bool = True) -> tuple[Use, Form]:
    """The form in which a product reads its bits.

    Args:
        op: The operator.
        isa: Instruction set.
        transposed: Whether positions fill the lanes.
        across: Whether these may be lanes of one bit.

    Raises:
        VitcError: If it reads them in an order that no layout has, or too many at once.
    """
    use = op.use(0)
    order, (positions, length) = use.order, _matrix(use)
    if length > MAX_LENGTH:
        raise refused(op, f"{length} bits are contracted, and sums are exact up to {MAX_LENGTH}")
    if order is None or order.heads != 1:
        raise refused(op, "it reads bits in an order that no layout has")
    if transposed and across and _fills_vectors(op, isa, order.windows):
        return use, Form(order, Across(positions, length))
    if transposed:
        columns = Columns(Axis(positions), length, isa.lanes, isa.element_bits, order.windows)
        return use, Form(order, columns)
    axis = Axis(length // order.together, order.together)
    return use, Form(order, Rows(positions, axis, order.windows))


def _fills_vectors(op: Op, isa: Isa, windows: int) -> bool:
    """Whether bit slices are faster for positions, whose bits a row of bits is a vector of."""
    positions, length = _matrix(op.use(0))
    outputs = len(op.constant(2))
    whole = windows == 1 and isa.slice_vectors > 1 and not positions % (8 * isa.slice_bytes)
    return whole and uses_slices(isa, outputs, positions, length)


def _matrix(use: Use) -> tuple[int, int]:
    """Positions of a window, and bits of each, as they are read."""
    return (use.shape[-2] if len(use.shape) > 1 else 1), use.shape[-1]


@dataclass(frozen=True)
class Product:
    """A product of bits with binary weights.

    Attributes:
        op: The operator: bits and packed weight [O, P(K)] are its first two inputs.
        form: In which it reads the bits.
        outputs: The outputs as they lie, by heads where that is asked for.
        isa: Instruction set.
        by_rows: Whether each row of the product is finished by itself, as bit slices need it.
    """

    op: Op
    form: Form
    outputs: Axis
    isa: Isa
    by_rows: bool = True

    @property
    def transposed(self) -> bool:
        """Whether positions fill the lanes, and weights are broadcast."""
        return isinstance(self.form.layout, Columns | Across)

    @property
    def axis(self) -> Axis:
        """The contracted axis."""
        layout = self.form.layout
        return layout.axis if isinstance(layout, Rows) else Axis(self.op.use(0).shape[-1])

    @property
    def positions(self) -> int:
        """Vectors of bits that are multiplied."""
        return int(np.prod(self.op.use(0).shape[:-1]))

    @property
    def places(self) -> int:
        """Positions of a window: they have constants of their own, which windows share."""
        return _matrix(self.op.use(0))[0]

    @property
    def windows(self) -> int:
        """Groups of positions."""
        return self.positions // self.places

    @property
    def period(self) -> int:
        """Positions, or lanes of positions, from one window to the next; 0 if there is one."""
        if self.windows == 1:
            return 0
        return self._lanes_of_window if self.transposed else self.places

    @property
    def _lanes_of_window(self) -> int:
        return round_up(Axis(self.places).padded, self.isa.lanes)

    @property
    def shape(self) -> LinearShape:
        """Geometry of the kernel."""
        axis, elements = self.axis, self._elements
        if self.transposed:
            lanes = round_up(self.positions, WORD)
            if self.windows > 1:
                lanes = self.windows * self._lanes_of_window
            depth = axis.length if self.on_slices else 0
            return LinearShape(self.outputs.length, lanes, axis.length, elements, depth)
        depth = self.depth if self.on_slices else 0
        return LinearShape(self.positions, self.outputs.padded, axis.length, elements, depth)

    @property
    def depth(self) -> int:
        """Bits of a row without the padding behind them; that of groups lies between."""
        axis = self.axis
        return axis.length if axis.padded_group == axis.size or axis.groups == 1 else axis.padded

    @property
    def _elements(self) -> int:
        return self.axis.padded // self.isa.element_bits

    @property
    def on_tiles(self) -> bool:
        """Whether AMX tiles multiply."""
        lanes = self.positions if self.transposed else self.outputs.padded
        return uses_tiles(self.isa, self._elements) and tiles_pay(lanes, self.axis.length)

    def engine(self, isa: Isa) -> Isa:
        """An instruction set without tiles, where they do not multiply."""
        return isa if self.on_tiles else replace(isa, amx=False)

    @property
    def on_slices(self) -> bool:
        """Whether bit slices add: of rows that are finished one by one."""
        if isinstance(self.form.layout, Across):
            return True
        if self.transposed or not self.by_rows or self.on_tiles:
            return False
        return uses_slices(self.isa, self.positions, self.outputs.padded, self.axis.length)

    @property
    def tuned(self) -> bool:
        """Whether the kernel has a register tile to try others of."""
        return not self.on_tiles and not self.on_slices

    @property
    def cost(self) -> Cost:
        """Multiply-accumulates, and what makes them."""
        unit: Unit = "int8" if self.on_tiles else "popcount"
        return Cost(binary=self.positions * self.outputs.length * self.axis.length, unit=unit)

    def stem(self, name: str) -> str:
        """Start of the kernel's symbol."""
        if self.on_slices:
            return f"slices_{name}"
        return f"amx_{name}" if self.on_tiles else name

    def factored(self, scales: Array) -> Array:
        """Scales with the factor that the engine wants."""
        return scale_factor(self.engine(self.isa), self._elements) * scales

    def operands(self, emission: Emission) -> list[Operand]:
        """Broadcast operand and lanes operand."""
        bits = emission.read(self.op, self.op.use(0), self.form)
        weight = self._weight(emission)
        rows, lanes = (weight, bits) if self.transposed else (bits, weight)
        if self.on_tiles:
            tap = self.op.output.tap
            source = f"{tap}.weight" if self.transposed else self.op.use(0).value.tap
            count = self.outputs.length if self.transposed else self.positions
            rows = emission.signs(rows, count, self.axis, source)
        return [rows, lanes]

    def affine(self, emission: Emission) -> list[Operand]:
        """Operands, scales and what is added."""
        return [*self.operands(emission), *self.constants(emission)]

    def constants(self, emission: Emission, fill: float = 0.0) -> list[Operand]:
        """Scales and what is added, which are the inputs 2 and 3.

        Args:
            emission: Where constants go.
            fill: Scale of outputs that are padding.
        """
        scales, added = self.op.constant(2), self.op.constant(3)
        return [
            self.of_outputs(self.factored(scales), fill, emission),
            self.of_outputs(added, 0, emission),
        ]

    @property
    def weights(self) -> npt.NDArray[np.uint8]:
        """Bits of the weights, a row an output as they lie, padding included."""
        packed = self.op.constant(1).astype(np.uint8)
        bits = np.unpackbits(packed, axis=-1, bitorder="little")[..., : self.axis.length]
        return bits if self.transposed else self.outputs.pad(bits, 0).astype(np.uint8)

    def slices(self, weights: npt.NDArray[np.uint8], emission: Emission) -> Constant:
        """Weights of any outputs as bit slices."""
        full = self.axis.pad(weights, 1).astype(np.uint8)[:, : self.depth]
        blocks = slice_blocks(self.isa, len(weights))
        slices = to_slices(full, *blocks, slice_vector(self.isa))
        # The last vector is loaded whole.
        return emission.constant(np.pad(slices, (0, self.isa.slice_bytes)))

    def counted(self, weights: npt.NDArray[np.uint8], emission: Emission) -> Constant:
        """Weights of any outputs in lanes, for popcounts."""
        isa = self.isa
        return emission.constant(to_lanes(weights, self.axis, isa.lanes, isa.element_bits))

    def _weight(self, emission: Emission) -> Constant:
        """Weights in the layout that pairs with the bits."""
        bits = self.weights
        if self.transposed:
            rows = np.zeros((round_up(len(bits), ROW_PADDING), self.axis.length), np.uint8)
            rows[: len(bits)] = bits
            return emission.constant(to_rows(rows, self.axis))
        return self.slices(bits, emission) if self.on_slices else self.counted(bits, emission)

    def of_outputs(self, array: Array, fill: float, emission: Emission) -> Constant:
        """Constants of the outputs, along lanes or rows as the outputs lie."""
        values = array.astype(np.float32)
        if self.transposed:
            rows = np.full(round_up(len(values), ROW_PADDING), fill, np.float32)
            rows[: len(values)] = values
            return emission.constant(rows)
        padded = np.full(round_up(self.outputs.padded, self.isa.lanes), fill, np.float32)
        padded[: self.outputs.padded] = self.outputs.pad(values, 0, fill)
        return emission.constant(padded)

    def of_places(self, array: Array, emission: Emission) -> Constant:
        """Constants of the places of a window [groups, places], along lanes or rows as they lie."""
        if self.transposed:
            lanes = np.zeros(self.period or self._lanes_of_window, np.float32)
            lanes[: self.places] = array[0]
            return emission.constant(lanes)
        padded = np.zeros((len(array), round_up(self.places, ROW_PADDING)), np.float32)
        padded[:, : self.places] = array
        return emission.constant(padded)
