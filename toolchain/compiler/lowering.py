"""Packed ONNX graph to kernel calls.

Works backwards from the logits: each binary op asks for its operands in the layout its kernel
reads, so a producer is told how to pack before it is emitted. Reshapes and transposes between a
producer of bits and its consumer are never
executed: an array of indices is sent through them, and the result must be one of the arrangements
    that a kernel writes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from vitc.compiler.float_ends import fold_head, match_embedding
from vitc.compiler.plan import Buffer, Constant, Image, Operand, Plan, Step
from vitc.dialect.metadata import LAYER_KEY
from vitc.dialect.ops import DOMAIN
from vitc.errors import VitcError
from vitc.targets.isa import ISAS, Isa
from vitc.targets.kernels.attention import MAX_BYTE_DISTANCE, AttentionShape, attention_kernel
from vitc.targets.kernels.binarize import along_columns_kernel, along_rows_kernel
from vitc.targets.kernels.binary_linear import (
    LinearShape,
    residual_kernel,
    scale_factor,
    threshold_kernel,
    uses_tiles,
)
from vitc.targets.kernels.emitter import Kernel
from vitc.targets.kernels.head import HEAD_TILE, head_kernel
from vitc.targets.kernels.patch_embedding import PatchShape, float_tile, patch_embedding_kernel
from vitc.targets.kernels.signs import signs_kernel
from vitc.targets.layouts import Columns, Floats, Lanes, Layout, Plain, Rows, Signs
from vitc.targets.layouts.views import View, simplified
from vitc.targets.packing import ROW_PADDING, WORD, Axis, round_up, to_lanes, to_rows
from vitc.targets.table import Target
from vitc.targets.tiles import Tile

__all__ = ["lower_graph"]

Array = npt.NDArray[Any]
_AMX = "amx_"
_UNTILED = (_AMX, "signs")
"""Starts of the stems of kernels that have no register tiles to choose."""
MAX_LENGTH = 65535
"""Most bits of one contraction: popcounts are summed in 16 bits."""
_NAMED = 5
BINARY_OPS = frozenset({"BinaryLinearThreshold", "BinaryLinearResidual", "MaskSignMatMul"})


@dataclass(frozen=True)
class Packed:
    """Packed bits in the workspace.

    Attributes:
        buffer: Where.
        positions: Vectors of bits: tokens, or channels in the spatial interaction branch.
        axis: The packed axis.
        on_lanes: Whether positions fill the lanes (lanes layout) or lie one after the other (rows
            layout).
    """

    buffer: Buffer
    positions: int
    axis: Axis
    on_lanes: bool


def _identity(stem: str, key: tuple[Any, ...]) -> str:
    """What a kernel does, in words that are the same for every model with such a kernel."""
    return f"{stem}{key!r}"


def _is(node: ir.Node | None, name: str) -> bool:
    return node is not None and node.domain == DOMAIN and node.op_type == name


def _producer(value: ir.Value | None) -> ir.Node:
    node = value.producer() if value is not None else None
    if node is None:
        name = value.name if value is not None else "an absent input"
        raise VitcError(
            f"No kernel writes {name!r}, which a binary layer reads.",
            "Export the model again with `vitc export --format packed`.",
        )
    return node


def _array(value: ir.Value | None, what: str) -> Array:
    """Return a constant input as an array."""
    if value is None or value.const_value is None:
        raise VitcError(
            f"{what} is not a constant in the ONNX file.",
            "Export the model again with `vitc export`.",
        )
    return np.asarray(value.const_value.numpy())


def _matrix(array: Array) -> Array:
    """Drop the leading axes of length 1 of a constant [.., rows, columns]."""
    rows, columns = array.shape[-2:]
    return array.reshape(rows, columns)


def _int(node: ir.Node, name: str) -> int:
    return int(node.attributes[name].as_int())


def _unpack(packed: Array, k: int) -> npt.NDArray[np.uint8]:
    return np.unpackbits(packed.astype(np.uint8), axis=-1, bitorder="little")[..., :k]


def apply_view(node: ir.Node, array: Array) -> Array:
    """Send an array with a batch axis of 1 through one Reshape, Transpose or Identity."""
    if node.op_type == "Transpose":
        permutation = node.attributes["perm"].as_ints()
        return array.transpose(permutation)
    if node.op_type == "Reshape":
        shape = [int(d) for d in _array(node.inputs[1], "The shape of a Reshape")]
        shape = [array.shape[i] if d == 0 else d for i, d in enumerate(shape)]
        return array.reshape([1, *shape[1:]])
    if node.op_type == "Identity":
        return array
    raise VitcError(
        f"{node.op_type} stands between a binarization and a binary layer; no kernel does that.",
        "Export the model again with `vitc export --format packed`.",
    )


_VIEWS = frozenset({"Reshape", "Transpose", "Identity"})


class Lowering:
    """State of one lowering. Use `lower_graph`."""

    def __init__(
        self, model: ir.Model, target: Target, taps: frozenset[str], tiles: Mapping[str, Tile]
    ) -> None:
        self.graph = model.graph
        self.tiles = tiles
        self.isa: Isa = ISAS[target.isa]
        self.taps = taps
        self.steps: list[Step] = []
        self.lowered: set[ir.Node] = set()
        self.identities: dict[str, str] = {}
        self._kernels: dict[tuple[Any, ...], Kernel] = {}
        self._streams: dict[str, Buffer] = {}
        self._packed: dict[tuple[str, str], Packed] = {}
        self._constants: dict[tuple[str, bytes], Constant] = {}
        self._signs: dict[int, Buffer] = {}
        self._embedding = match_embedding(model)
        self.tokens, self.width = self._embedding.start.shape
        self.stride = round_up(self.width, WORD)

    # --- pieces -------------------------------------------------------------------------------

    def _tile(self, stem: str, key: tuple[Any, ...]) -> Isa:
        """Register tiles of a kernel of this shape."""
        tile = self.tiles.get(_identity(stem, key))
        return tile.apply(self.isa) if tile is not None else self.isa

    def _kernel(
        self, stem: str, key: tuple[Any, ...], build: Callable[[str, Isa], Kernel]
    ) -> Kernel:
        """Return the kernel of a shape, building it once."""
        known = self._kernels.get((stem, *key))
        if known is None:
            count = sum(1 for other in self._kernels if other[0] == stem)
            known = build(f"vitc_{stem}_{count}", self._tile(stem, key))
            self._kernels[(stem, *key)] = known
            if key and not stem.startswith(_UNTILED):
                self.identities[known.symbol] = _identity(stem, key)
        return known

    def _constant(self, array: Array) -> Constant:
        """Return read-only data, shared among equal arrays."""
        array = np.ascontiguousarray(array)
        key = (str(array.dtype), array.tobytes())
        return self._constants.setdefault(key, Constant(array))

    def _emit(
        self,
        kernel: Kernel,
        operands: Sequence[Operand],
        tap: str,
        layout: Layout,
        views: Sequence[View] | None = (),
        *,
        binary: bool,
    ) -> Buffer:
        taps = () if views is None else ((tap, simplified(layout.shape, views)),)
        buffer = Buffer(f"{len(self.steps)}:{tap}", layout, taps)
        layer = tap.rpartition(".")[0] or tap
        self.steps.append(Step(kernel, tuple(operands), buffer, layer, tap, binary))
        return buffer

    def _rows_constant(self, values: Array, positions: int, groups: int = 1) -> Constant:
        """Per-position constants [groups, positions], padded to `ROW_PADDING`, fp32."""
        padded = np.zeros((groups, round_up(positions, ROW_PADDING)), np.float32)
        padded[:, :positions] = values
        return self._constant(padded)

    def _need_exact(self, length: int) -> None:
        if length > MAX_LENGTH:
            raise VitcError(
                f"{length} bits are contracted; sums of kernels are exact up to {MAX_LENGTH}.",
                "Train a narrower network, or one for smaller images.",
            )

    def _need_k(self, node: ir.Node, length: int) -> None:
        if _int(node, "k") != length:
            raise VitcError(
                f"{node.outputs[0].name} contracts {_int(node, 'k')} bits, but its input has "
                f"{length}.",
                "The ONNX file is damaged; export the model again.",
            )

    # --- the ends -----------------------------------------------------------------------------

    def logits(self) -> Buffer:
        """Emit everything, and return the buffer of the logits."""
        head = fold_head(self.graph)
        stream = self.stream(head.stream)
        weight = head.weight.astype(np.float32)
        classes = len(weight)
        padded = np.zeros((round_up(classes, HEAD_TILE), self.width), np.float32)
        padded[:classes] = weight
        tiled = padded.reshape(-1, HEAD_TILE, self.width).transpose(0, 2, 1)
        bias = np.zeros(len(padded), np.float32)
        bias[:classes] = head.bias
        kernel = self._kernel(
            "head",
            (),
            lambda symbol, _: head_kernel(
                symbol, token=head.token, width=self.width, stride=self.stride, classes=classes
            ),
        )
        operands: list[Operand] = [stream, self._constant(tiled), self._constant(bias)]
        return self._emit(kernel, operands, "logits", Plain(classes, len(padded)), binary=False)

    def _emit_embedding(self) -> Buffer:
        embedding = self._embedding
        shape = PatchShape(
            embedding.image,
            embedding.patch,
            embedding.weight.shape[1],
            self.stride,
            self.tokens - embedding.patches,
        )
        tile = float_tile(self._tile("patch_embedding", (shape,)), self.stride)
        weight = np.zeros((self.stride, embedding.weight[0].size), np.float32)
        weight[: self.width] = embedding.weight.reshape(self.width, -1)
        tiled = weight.reshape(self.stride // tile, tile, -1).transpose(0, 2, 1)
        start = np.zeros((self.tokens, self.stride), np.float32)
        start[:, : self.width] = embedding.start
        kernel = self._kernel(
            "patch_embedding",
            (shape,),
            lambda symbol, isa: patch_embedding_kernel(symbol, isa, shape),
        )
        return self._emit(
            kernel,
            [Image(), self._constant(tiled), self._constant(start)],
            embedding.tap,
            self._stream_layout(),
            binary=False,
        )

    def _stream_layout(self) -> Floats:
        return Floats(self.tokens, self.width, self.stride)

    def stream(self, value: ir.Value) -> Buffer:
        """Return the buffer of a residual stream value, emitting what makes it."""
        name = str(value.name)
        if name not in self._streams:
            if value is self._embedding.value:
                self._streams[name] = self._emit_embedding()
            elif _is(value.producer(), "BinaryLinearResidual"):
                self._streams[name] = self._emit_residual(_producer(value))
            else:
                raise VitcError(
                    f"No kernel writes the residual stream {name!r} ({_producer(value).op_type}).",
                    "Export the model again with `vitc export --format packed`.",
                )
        return self._streams[name]

    # --- binary linear ------------------------------------------------------------------------

    def _weight_operand(self, node: ir.Node, source: Packed, outputs: Axis) -> Constant:
        """Weights in the layout that pairs with the activations."""
        k = source.axis.length
        self._need_k(node, k)
        bits = _unpack(_array(node.inputs[1], "A binary weight"), k)
        if source.on_lanes:
            rows = np.zeros((round_up(len(bits), ROW_PADDING), k), np.uint8)
            rows[: len(bits)] = bits
            return self._constant(to_rows(rows, source.axis))
        padded = outputs.pad(bits, 0).astype(np.uint8)
        return self._constant(to_lanes(padded, source.axis, self.isa.lanes, self.isa.element_bits))

    def _output_constant(
        self, array: Array, source: Packed, outputs: Axis, fill: float
    ) -> Constant:
        """Per-output constants, along lanes or rows as the outputs lie."""
        if source.on_lanes:
            rows = np.full(round_up(len(array), ROW_PADDING), fill, np.float32)
            rows[: len(array)] = array
            return self._constant(rows)
        return self._constant(outputs.pad(array.astype(np.float32), 0, fill))

    def _linear_shape(self, source: Packed, outputs: Axis, count: int) -> LinearShape:
        self._need_exact(source.axis.length)
        elements = source.axis.padded // self.isa.element_bits
        if source.on_lanes:
            lanes = round_up(source.positions, WORD)
            return LinearShape(count, lanes, source.axis.length, elements)
        return LinearShape(source.positions, outputs.padded, source.axis.length, elements)

    def _emit_residual(self, node: ir.Node) -> Buffer:
        self.lowered.add(node)
        packed, weight, scale, bias, gain, residual = node.inputs
        del weight
        assert residual is not None  # noqa: S101 - the checker has verified the signature
        stream = self.stream(residual)
        source = self.packed(packed)
        transposed = bool(_int(node, "transposed"))
        if transposed != source.on_lanes:
            raise VitcError(
                f"No kernel adds {node.outputs[0].name} in this orientation.",
                "Export the model again with `vitc export --format packed`.",
            )
        scales = _array(scale, "A scale")
        outputs = Axis(len(scales))
        gains = _array(gain, "A gain").reshape(-1)
        has_gain = not bool(np.all(gains == 1))
        shape = self._linear_shape(source, outputs, len(scales))
        operands = self._operand_pair(node, source, outputs, str(node.outputs[0].name))
        operands += [
            self._output_constant(self._factored(scales, shape), source, outputs, 0),
            self._output_constant(_array(bias, "A bias"), source, outputs, 0),
        ]
        if has_gain:
            expanded = np.broadcast_to(gains, (source.positions,))
            if source.on_lanes:
                padded = np.zeros(shape.lanes, np.float32)
                padded[: source.positions] = expanded
                operands.append(self._constant(padded))
            else:
                operands.append(self._rows_constant(expanded, source.positions))
        kernel = self._kernel(
            self._stem("residual", shape),
            (shape, transposed, has_gain),
            lambda symbol, isa: residual_kernel(
                symbol, isa, shape, transposed=transposed, gain=has_gain, stride=self.stride
            ),
        )
        return self._emit(
            kernel,
            [*operands, stream],
            str(node.outputs[0].name),
            self._stream_layout(),
            binary=True,
        )

    def _stem(self, name: str, shape: LinearShape) -> str:
        return f"{_AMX}{name}" if uses_tiles(self.isa, shape.elements) else name

    def _factored(self, scales: Array, shape: LinearShape) -> Array:
        return scale_factor(self.isa, shape.elements) * scales

    def _operand_pair(
        self, node: ir.Node, source: Packed, outputs: Axis, tap: str
    ) -> list[Operand]:
        """Broadcast operand and lanes operand of a product that writes `tap`."""
        weight = self._weight_operand(node, source, outputs)
        rows: Operand = weight if source.on_lanes else source.buffer
        lanes: Operand = source.buffer if source.on_lanes else weight
        if uses_tiles(self.isa, source.axis.padded // self.isa.element_bits):
            count = len(_array(node.inputs[1], "A binary weight"))
            name = f"{tap}.weight" if source.on_lanes else source.buffer.name.partition(":")[2]
            rows = self._signs_of(
                rows, count if source.on_lanes else source.positions, source.axis, name
            )
        return [rows, lanes]

    def _signs_of(self, operand: Operand, rows: int, axis: Axis, name: str) -> Buffer:
        """Return the signs of packed rows, expanding them once."""
        if id(operand) not in self._signs:
            kernel = self._kernel(
                "signs", (rows, axis), lambda symbol, _: signs_kernel(symbol, rows, axis)
            )
            self._signs[id(operand)] = self._emit(
                kernel, [operand], f"{name}.signs", Signs(rows, axis), None, binary=False
            )
        return self._signs[id(operand)]

    # --- bits ---------------------------------------------------------------------------------

    def packed(self, value: ir.Value | None, role: str = "rows") -> Packed:
        """Return packed bits in the layout of a role, emitting what makes them.

        Args:
            value: Output of a PackBits.
            role: "rows" for the activations of a linear layer (or lanes, if they come from a
                transposed stream), "queries", "keys" or "values" of attention.
        """
        assert value is not None  # noqa: S101 - the checker has verified the signature
        key = (str(value.name), role)
        if key in self._packed:
            return self._packed[key]
        pack = _producer(value)
        if not _is(pack, "PackBits"):
            raise VitcError(
                f"{value.name} is packed by {pack.op_type}; no kernel does that.",
                "Export the model again with `vitc export --format packed`.",
            )
        chain: list[ir.Node] = []
        node = _producer(pack.inputs[0])
        while node.op_type in _VIEWS and node.domain == "":
            chain.insert(0, node)
            node = _producer(node.inputs[0])
        emit = {
            "Binarize": self._emit_binarize,
            "BinaryLinearThreshold": self._emit_threshold,
            "IntegerThreshold": self._emit_attention,
        }.get(node.op_type)
        if emit is None or node.domain != DOMAIN:
            raise VitcError(
                f"{value.name} packs the output of {node.op_type}; no kernel does that.",
                "Export the model again with `vitc export --format packed`.",
            )
        packed = emit(node, chain, role)
        self._need_k(pack, packed.axis.size if role in {"queries", "keys"} else packed.axis.length)
        self._packed[key] = packed
        return packed

    def _indices(self, shape: Sequence[int], chain: Sequence[ir.Node]) -> Array:
        indices = np.arange(int(np.prod(shape))).reshape(1, *shape)
        for node in chain:
            indices = apply_view(node, indices)
        result: Array = indices[0]
        return result

    def _tap_and_view(
        self, node: ir.Node, chain: Sequence[ir.Node], shape: Sequence[int]
    ) -> tuple[str, list[View]]:
        """Name of the tap along a chain of views, and the views up to it."""
        names = [str(node.outputs[0].name), *(str(n.outputs[0].name) for n in chain)]
        position = next((i for i, name in enumerate(names) if name in self.taps), 0)
        view: list[View] = []
        indices: Array = np.empty((1, *shape), np.int8)
        for step in chain[:position]:
            indices = apply_view(step, indices)
            if step.op_type == "Transpose":
                axes = tuple(axis - 1 for axis in step.attributes["perm"].as_ints()[1:])
                view.append(("transpose", axes))
            else:
                view.append(("reshape", tuple(indices.shape[1:])))
        return names[position], view

    def _refuse(self, node: ir.Node, role: str) -> VitcError:
        layer = node.metadata_props.get(LAYER_KEY, "an unknown layer")
        return VitcError(
            f"No kernel packs {node.outputs[0].name} ({node.op_type} of {layer}) as {role}.",
            "Export the model again with `vitc export --format packed`.",
        )

    def _emit_binarize(self, node: ir.Node, chain: list[ir.Node], role: str) -> Packed:
        source = node.inputs[0]
        before: list[ir.Node] = []
        producer = source.producer() if source is not None else None
        while producer is not None and producer.op_type in _VIEWS and producer.domain == "":
            before.insert(0, producer)
            source = producer.inputs[0]
            producer = source.producer() if source is not None else None
        assert source is not None  # noqa: S101 - the checker has verified the signature
        stream = self.stream(source)
        plain = (self.tokens, self.width)
        arrived = self._indices(plain, before)
        packed = self._indices(plain, [*before, *chain])
        # Constants are laid out as the Binarize sees its input; put them in the stream's order.
        limits = self._in_stream_order(_array(node.inputs[1], "A threshold"), arrived)
        flips = self._in_stream_order(_array(node.inputs[2], "A flip").astype(bool), arrived)
        tap, view = self._tap_and_view(node, chain, arrived.shape)
        layout: Layout
        operands: list[Operand]
        if np.array_equal(packed, np.arange(packed.size).reshape(plain)) and role == "rows":
            self._need_constant_along(limits, flips, 1, tap)
            axis = Axis(self.width)
            flip = np.where(flips[:, 0], 0xFFFF, 0).astype(np.uint16)
            kernel = self._kernel(
                "binarize",
                (),
                lambda symbol, _: along_rows_kernel(symbol, self.tokens, self.width, self.stride),
            )
            operands = [
                stream,
                self._constant(limits[:, 0].astype(np.float32)),
                self._constant(flip),
            ]
            layout = Rows(self.tokens, axis)
            result = (self.tokens, axis, False)
        elif np.array_equal(packed, np.arange(packed.size).reshape(plain).T) and role == "rows":
            self._need_constant_along(limits, flips, 0, tap)
            axis = Axis(self.tokens)
            most = (1 << self.isa.element_bits) - 1
            threshold = np.zeros(self.stride, np.float32)
            threshold[: self.width] = limits[0]
            flip = np.zeros(self.stride, self.isa.element)
            flip[: self.width] = np.where(flips[0], most, 0)
            kernel = self._kernel(
                "binarize_columns",
                (),
                lambda symbol, isa: along_columns_kernel(
                    symbol, isa, self.tokens, self.stride, self.stride
                ),
            )
            operands = [stream, self._constant(threshold), self._constant(flip)]
            layout = self._columns(axis.length, Axis(self.width))
            result = (self.width, axis, True)
        else:
            raise self._refuse(node, role)
        views: list[View] = [("reshape", packed.shape)]
        if not np.array_equal(arrived, packed):
            views.append(("transpose", (1, 0)))
        views = [*views, ("reshape", arrived.shape), *view]
        return Packed(self._emit(kernel, operands, tap, layout, views, binary=False), *result)

    def _in_stream_order(self, constant: Array, arrived: Array) -> Array:
        expanded = np.broadcast_to(constant, (1, *arrived.shape))[0]
        ordered = np.empty(arrived.size, constant.dtype)
        ordered[arrived.reshape(-1)] = expanded.reshape(-1)
        return ordered.reshape(self.tokens, self.width)

    def _need_constant_along(self, limits: Array, flips: Array, axis: int, tap: str) -> None:
        for array in (limits, flips):
            if not np.array_equal(array, np.broadcast_to(array.take([0], axis), array.shape)):
                raise VitcError(
                    f"The threshold of {tap} differs along the packed axis; no kernel does that.",
                    "Thresholds must be per token, or per channel on the transposed stream.",
                )

    def _columns(self, length: int, vectors: Axis) -> Columns:
        return Columns(vectors, length, self.isa.lanes, self.isa.element_bits)

    def _emit_threshold(self, node: ir.Node, chain: list[ir.Node], role: str) -> Packed:
        self.lowered.add(node)
        source = self.packed(node.inputs[0])
        scales = _array(node.inputs[2], "A scale")
        count, positions = len(scales), source.positions
        # A product that overflows would meet the infinity that stands for "never".
        with np.errstate(over="ignore"):
            products = np.abs(scales.astype(np.float32)) * np.float32(2 * source.axis.length)
        if not np.isfinite(products).all():
            raise VitcError(
                f"A scale of {node.outputs[0].name} times {source.axis.length} is beyond fp32.",
                "The training diverged; take an earlier checkpoint.",
            )
        plain = (positions, count)
        packed = self._indices(plain, chain)
        natural = np.arange(packed.size).reshape(plain)
        tap, view = self._tap_and_view(node, chain, plain)
        output: Literal["rows", "keys", "columns"]
        if role == "rows" and np.array_equal(packed, natural):
            outputs, output = Axis(count), "columns" if source.on_lanes else "rows"
        elif role in {"queries", "keys"} and packed.ndim == 3 and not source.on_lanes:
            heads, tokens, width = packed.shape
            if tokens != positions:
                raise self._refuse(node, role)
            outputs, output = Axis(width, heads), "rows" if role == "queries" else "keys"
            wanted = natural.reshape(positions, heads, width).transpose(1, 0, 2)
            if not np.array_equal(packed, wanted):
                raise self._refuse(node, role)
        elif role == "values" and packed.ndim == 3 and not source.on_lanes:
            heads, width, tokens = packed.shape
            if tokens != positions:
                raise self._refuse(node, role)
            outputs, output = Axis(width, heads), "columns"
            wanted = natural.reshape(positions, heads, width).transpose(1, 2, 0)
            if not np.array_equal(packed, wanted):
                raise self._refuse(node, role)
        else:
            raise self._refuse(node, role)

        upper, lower = (_matrix(_array(value, "A threshold")) for value in node.inputs[4:6])
        two_sided = bool(np.any(lower > -np.inf))
        groups = max(upper.shape[1], lower.shape[1])
        if groups not in (1, outputs.groups):
            raise VitcError(
                f"{tap} has {groups} threshold groups over {outputs.groups} heads.",
                "Thresholds must be shared by all outputs or differ by head.",
            )
        shape = self._linear_shape(source, outputs, count)
        # A padding output must give bit 0 whatever its threshold: every comparison with NaN is
        # false.
        operands = self._operand_pair(node, source, outputs, tap)
        operands += [
            self._output_constant(self._factored(scales, shape), source, outputs, np.nan),
            self._output_constant(_array(node.inputs[3], "An offset"), source, outputs, 0),
        ]
        for side in (upper, lower) if two_sided else (upper,):
            values = np.broadcast_to(side, (positions, groups)).T
            if source.on_lanes:
                padded = np.zeros(shape.lanes, np.float32)
                padded[:positions] = values[0]
                operands.append(self._constant(padded))
            else:
                operands.append(self._rows_constant(values, positions, groups))
        group = outputs if groups > 1 else None
        head = outputs if output == "keys" else None
        kernel = self._kernel(
            self._stem(f"threshold_{output}", shape),
            (shape, source.on_lanes, two_sided, group, head),
            lambda symbol, isa: threshold_kernel(
                symbol,
                isa,
                shape,
                output=output,
                transposed=source.on_lanes,
                two_sided=two_sided,
                group=group,
                head=head,
            ),
        )
        layout: Layout
        if output == "rows":
            layout = Rows(positions, outputs)
            before: list[View] = []
            result = (positions, outputs, False)
        elif output == "keys":
            lanes, element_bits = self.isa.lanes, self.isa.element_bits
            layout = Lanes(positions, outputs.size, lanes, element_bits, outputs.groups)
            before = [("transpose", (1, 0, 2))]
            result = (positions, outputs, True)
        elif source.on_lanes:
            layout = self._columns(count, Axis(positions))
            before = []
            result = (positions, Axis(count), True)
        else:
            layout = self._columns(positions, outputs)
            before = [("transpose", (0, 2, 1))]
            result = (count, Axis(positions), True)
        views: list[View] = [*before, ("reshape", plain), *view]
        return Packed(self._emit(kernel, operands, tap, layout, views, binary=True), *result)

    # --- attention ----------------------------------------------------------------------------

    def _emit_attention(self, node: ir.Node, chain: list[ir.Node], role: str) -> Packed:
        product = _producer(node.inputs[0])
        pack = _producer(product.inputs[0])
        best = _producer(pack.inputs[0])
        scores = _producer(best.inputs[0])
        expected = ("MaskSignMatMul", "PackBits", "RowBestMask", "BinaryScores")
        found = (product, pack, best, scores)
        if not all(_is(n, name) for n, name in zip(found, expected, strict=True)):
            raise self._refuse(node, role)
        self.lowered.add(product)
        queries = self.packed(scores.inputs[0], "queries")
        keys = self.packed(scores.inputs[1], "keys")
        values = self.packed(product.inputs[1], "values")
        head, tokens = queries.axis, queries.positions
        if keys.positions != tokens or keys.axis != head or values.axis.length != tokens:
            raise self._refuse(node, role)
        self._need_exact(tokens)
        self._need_k(scores, head.size)
        self._need_k(product, tokens)
        self._need_k(pack, tokens)
        slack = min(_int(best, "slack"), head.size)  # No two vectors of bits are further apart.
        if self.isa.element_bits == 8 and head.size > MAX_BYTE_DISTANCE - slack:
            raise VitcError(
                f"Heads of width {head.size} are wider than {MAX_BYTE_DISTANCE - slack}, the most "
                f"that {self.isa.name} kernels take.",
                "Use more heads, or compile for x86-avx512.",
            )
        plain = (head.groups, tokens, head.size)
        packed = self._indices(plain, chain)
        wanted = np.arange(packed.size).reshape(plain).transpose(1, 0, 2)
        if role != "rows" or not np.array_equal(packed, wanted.reshape(tokens, -1)):
            raise self._refuse(node, role)
        threshold = _array(node.inputs[1], "A threshold")
        per_token = np.broadcast_to(threshold, (1, *plain))[0]
        if not np.array_equal(per_token, np.broadcast_to(per_token[:1, :, :1], plain)):
            raise VitcError(
                f"The threshold of {node.outputs[0].name} differs by head or channel; no kernel "
                "does that.",
                "Thresholds of the attention output must be per token.",
            )
        shape = AttentionShape(tokens, head, slack)
        kernel = self._kernel(
            "attention", (shape,), lambda symbol, isa: attention_kernel(symbol, isa, shape)
        )
        tap, view = self._tap_and_view(node, chain, plain)
        views: list[View] = [
            ("reshape", (tokens, head.groups, head.size)),
            ("transpose", (1, 0, 2)),
            *view,
        ]
        # Beyond tokens + 1 a threshold decides nothing more.
        limit = np.zeros(round_up(tokens, ROW_PADDING), np.int32)
        limit[:tokens] = np.clip(per_token[0, :, 0], -tokens - 1, tokens + 1)
        operands: list[Operand] = [
            queries.buffer,
            keys.buffer,
            values.buffer,
            self._constant(limit),
        ]
        buffer = self._emit(kernel, operands, tap, Rows(tokens, head), views, binary=True)
        return Packed(buffer, tokens, head, on_lanes=False)


def lower_graph(
    model: ir.Model, target: Target, taps: Sequence[str], tiles: Mapping[str, Tile] | None = None
) -> Plan:
    """Lower a packed ONNX graph to kernel calls.

    Args:
        model: What `vitc export --format packed` writes.
        target: Machine.
        taps: Names of the values that a trace shows.
        tiles: Register tiles for some kernels, by `Plan.identities`; the target's for the others.

    Returns:
        A plan whose workspace is not laid out yet.

    Raises:
        VitcError: If some value has no kernel, or a binary op of the file has none (it is named).
    """
    lowering = Lowering(model, target, frozenset(taps), tiles or {})
    logits = lowering.logits()
    plan = Plan(lowering.steps, logits, lowering.identities)
    products = [n for n in model.graph if n.domain == DOMAIN and n.op_type in BINARY_OPS]
    lost = [n for n in products if n not in lowering.lowered]
    if lost:
        named = ", ".join(
            f"{n.outputs[0].name} ({n.op_type} of {n.metadata_props.get(LAYER_KEY, '?')})"
            for n in lost[:_NAMED]
        )
        raise VitcError(
            f"The ONNX file has {len(products)} binary products, and {len(lost)} of them have no "
            f"kernel: {named}.",
            "A part of the graph does not lead to the logits; export the model again.",
        )
    return plan
