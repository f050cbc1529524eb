"""Phase 1: a packed ONNX graph becomes a typed graph.

Constants are folded, the axis of images is left out, and packing is no operator any more: a product
contracts the last axis of its bits. Floats become rows x channels where an operator of the file has
channels first. Operators keep the order of the file. Sizes are worked out
here, never taken from the file, which may state what it likes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from vitc.compiler.graph import VIEW, Array, Graph, Input, Kind, Op, Use, Value
from vitc.compiler.plainer import plainer
from vitc.dialect.metadata import LAYER_KEY
from vitc.dialect.ops import DOMAIN
from vitc.dialect.packing import packed_width
from vitc.errors import VitcError
from vitc.onnx_files.ports import run_ports
from vitc.runtime.port import EXTENT, Port
from vitc.targets.layouts.views import View, viewed_shape

__all__ = ["read"]

_INPUTS: Mapping[ir.DataType, Kind] = {
    ir.DataType.FLOAT: "float",
    ir.DataType.INT32: "int",
    ir.DataType.INT64: "int",
    ir.DataType.UINT8: "packed",
}

_MOST_ELEMENTS = 1 << 28
"""Of a value; scores have as many, which never are in memory at once."""
_MOST_LISTED = 1 << 26
"""Of a value that is viewed, or a constant that is computed: their elements are listed here."""

_SCAN = (DOMAIN, "MaxSimHamming")

_HINT = "Export the model again with `vitc export --format packed`."
_PICKED = "its rows are picked by something else than an input of integers"
_SPATIAL = 2
_PAD_INPUTS = 3
"""Of a padding of all axes: what is padded, by how much, with what."""

Shape = tuple[int, ...]


def read(model: ir.Model, taps: Collection[str]) -> Graph:
    """Read an ONNX graph.

    Args:
        model: What `vitc export --format packed` writes.
        taps: Names of the values that a trace shows.

    Raises:
        VitcError: If an operator is unknown, or its sizes contradict each other.
    """
    reader = _Reader(frozenset(taps))
    own = run_ports(model)
    inputs = [reader.input(value, own.get(str(value.name))) for value in model.graph.inputs]
    for node in model.graph:
        reader.node(node)
    outputs = {str(value.name): reader.output(value) for value in model.graph.outputs}
    return Graph(inputs, outputs, reader.ops)


class _Reader:
    """What is known of each value of the file so far."""

    def __init__(self, taps: frozenset[str]) -> None:
        self.taps = taps
        self.ops: list[Op] = []
        self._known: dict[ir.Value, Value | Array] = {}
        self._viewed: dict[Value, Value] = {}
        self._inputs: list[Value] = []
        self._images: dict[ir.Value, int] = {}
        """Where the axis of images is, of views that have moved it."""

    def input(self, value: ir.Value, port: Port | None) -> Value:
        name = str(value.name)
        sizes = [] if value.shape is None else list(value.shape)[1:]
        if port is not None:
            sizes = [size for size in port.shape if size is not None]
        if not sizes or not all(isinstance(size, int) for size in sizes):
            raise VitcError(f"The input {name} has no fixed size.", _HINT)
        kind = _INPUTS.get(value.dtype) if value.dtype is not None else None
        if kind is None:
            found = "nothing" if value.dtype is None else value.dtype.name
            raise VitcError(f"The input {name} holds {found}, wanted floats or integers.", _HINT)
        if kind == "packed" and port is None:
            kind = "bytes"
        shape = tuple(int(size) for size in sizes)  # type: ignore[arg-type]
        known = Value(name, kind, shape, port=port)
        self._known[value] = known
        self._inputs.append(known)
        return known

    def output(self, value: ir.Value) -> Use:
        known = self._known.get(value)
        if self._images.get(value, 0):
            raise VitcError(f"The first axis of the output {value.name} is not of images.", _HINT)
        if not isinstance(known, Value):
            raise VitcError(f"The output {value.name} does not depend on the input.", _HINT)
        return Use(known)

    def _get(self, value: ir.Value | None) -> Value | Array | None:
        if value is None:
            return None
        if value not in self._known:
            if value.const_value is None:
                raise VitcError(f"Nothing makes {value.name}.", _HINT)
            self._known[value] = np.asarray(value.const_value.numpy())
        return self._known[value]

    def node(self, node: ir.Node) -> None:
        operands = [self._get(value) for value in node.inputs]
        shapes = [None if operand is None else operand.shape for operand in operands]
        constants = [each if isinstance(each, np.ndarray) else None for each in operands]
        parts = plainer(node, shapes, constants)
        if parts is not None:
            self._in_its_place(node, *parts)
            return
        images = max((self._images.get(value, 0) for value in node.inputs if value), default=0)
        call = _Call(node, operands, _plain_attributes(node.attributes), images)
        if node.op_type == "Shape" and not node.domain:
            self._known[node.outputs[0]] = call.shape_with_images()
        elif all(not isinstance(operand, Value) for operand in call.operands):
            self._known[node.outputs[0]] = call.fold()
        else:
            self._operator(call)

    def _in_its_place(
        self, node: ir.Node, parts: Sequence[ir.Node], results: Sequence[ir.Value]
    ) -> None:
        """Read the plainer nodes of a node."""
        for output, result in zip(node.outputs, results, strict=True):
            result.name = output.name
        before, names = len(self.ops), {output.name for output in node.outputs}
        for part in parts:
            self.node(part)
        for op in self.ops[before:]:
            # What is between is no value of the file.
            shown = op.output.shown or ((op.output.name, ()),)
            if op.output.shown is not None or op.output.name not in names:
                op.output.shown = tuple(each for each in shown if each[0] in names)
        for output, result in zip(node.outputs, results, strict=True):
            self._known[output] = self._known[result]

    def _operator(self, call: _Call) -> None:
        node = call.node
        views, operator = _VIEWS.get(_type(node)), _OPERATORS.get(_type(node))
        if views is not None and isinstance(call.operands[0], Value):
            op_kind, attributes = VIEW, {"views": views(call)}
            kind, shape = _kind(call), viewed_shape(call.shape(0), attributes["views"])
            self._images[node.outputs[0]] = _images_after(call)
        elif call.images:
            raise call.refused("the axis of images does not come first in what it reads")
        elif operator is not None and not any(value.uses() for value in node.outputs[1:]):
            op_kind, attributes = node.op_type, call.attributes
            kind, shape = operator(call)
        else:
            raise call.refused("no kernel computes it")
        most = _MOST_LISTED if views is not None else _MOST_ELEMENTS
        if math.prod(shape) > most or not all(size > 0 for size in shape):
            raise call.refused(f"its result of {list(shape)} is of no sensible size")
        name = str(node.outputs[0].name)
        output = Value(name, kind, shape, [(name, ())] if name in self.taps else [])
        if _type(node) == _SCAN:
            output.port = Port(name, "int32", (None, *shape), per_image=False)
        elif any(isinstance(operand, Value) and operand.port for operand in call.operands):
            raise call.refused("it reads what belongs to the whole run, not to an image")
        if op_kind == VIEW and isinstance(call.operands[0], Value):
            self._viewed[output] = call.operands[0]
        if op_kind == "Gather":
            self._limit(call)
        self._known[node.outputs[0]] = output
        inputs: list[Input] = [
            Use(operand) if isinstance(operand, Value) else operand for operand in call.operands
        ]
        if _type(node) in _CHANNELS_FIRST:
            first = call.shape(0)
            turned = Value(f"{name}.input", kind, (*first[1:], first[0]))
            order = (*range(1, len(first)), 0)
            self._append(VIEW, call, inputs[:1], turned, {"views": (("transpose", order),)})
            inputs[0] = Use(turned)
            turn = (("transpose", (len(shape) - 1, *range(len(shape) - 1))),)
            by_row = (*shape[1:], shape[0])
            rows = Value(f"{name}.rows", kind, by_row, shown=((name, turn),))
            self._append(op_kind, call, inputs, rows, attributes)
            self._append(VIEW, call, [Use(rows)], output, {"views": turn})
        else:
            self._append(op_kind, call, inputs, output, attributes)

    def _limit(self, call: _Call) -> None:
        """Say of the input that picks rows that it is an index, and of how many rows."""
        index = call.operands[1]
        while isinstance(index, Value) and index in self._viewed:
            index = self._viewed[index]
        if not isinstance(index, Value) or index not in self._inputs:
            raise call.refused(_PICKED)
        rows = len(call.constant(0))
        index.kind, index.limit = "index", min(rows, index.limit or rows)

    def _append(
        self,
        kind: str,
        call: _Call,
        inputs: Sequence[Input],
        output: Value,
        attributes: Mapping[str, Any],
    ) -> None:
        domain = "" if kind == VIEW else call.node.domain
        self.ops.append(Op(kind, domain, tuple(inputs), output, attributes, call.layer))


def _type(node: ir.Node) -> tuple[str, str]:
    return node.domain, node.op_type


def _plain_attributes(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: attribute.value for name, attribute in attributes.items()}


@dataclass(frozen=True)
class _Call:
    """A node, its operands without the axis of images, and its attributes.

    Attributes:
        images: Where the axis of images is in what it reads.
    """

    node: ir.Node
    operands: list[Value | Array | None]
    attributes: dict[str, Any]
    images: int = 0

    @property
    def layer(self) -> str:
        return str(self.node.metadata_props.get(LAYER_KEY, "an unknown layer"))

    def refused(self, why: str) -> VitcError:
        name, kind = self.node.outputs[0].name, self.node.op_type
        return VitcError(f"{name} ({kind} of {self.layer}) is not compiled: {why}.", _HINT)

    def shape(self, index: int) -> Shape:
        """Shape of an operand; a constant has one entry for all images, or no axis of them."""
        operand = self.operands[index] if index < len(self.operands) else None
        if operand is None:
            raise self.refused(f"it lacks its input {index}")
        return operand.shape

    def constant(self, index: int) -> Array:
        operand = self.operands[index] if index < len(self.operands) else None
        if not isinstance(operand, np.ndarray):
            raise self.refused(f"its input {index} is no constant")
        return operand

    def axis(self, axis: int, rank: int) -> int:
        """An axis, counted without that of images; `rank` counts it."""
        axis = axis + rank if axis < 0 else axis
        if not 0 <= axis < rank or axis == self.images:
            raise self.refused("it touches the axis of images, which comes first and alone")
        return axis - (axis > self.images)

    def same_k(self, length: int) -> None:
        """Compare the bits that the node says it contracts with those that there are."""
        if self.attributes.get("k") != length:
            raise self.refused(
                f"it contracts {self.attributes.get('k')} bits, but its input has {length}"
            )

    def shape_with_images(self) -> Array:
        """What a Shape gives for one image."""
        operand = self.operands[0]
        whole = (1, *operand.shape) if isinstance(operand, Value) else self.shape(0)
        start, end = self.attributes.get("start", 0), self.attributes.get("end")
        return np.array(whole[start:end], np.int64)

    def fold(self) -> Array:
        """The value of a node that reads constants only."""
        if self.node.op_type not in _FOLDED or self.node.domain:
            raise self.refused("no kernel computes it")
        found = _FOLDED[self.node.op_type](self)
        if found.size > _MOST_LISTED:
            raise self.refused(f"its result of {list(found.shape)} is of no sensible size")
        return found


# --- views ----------------------------------------------------------------------------------------


def _reshape(call: _Call) -> tuple[View, ...]:
    shape, wanted = call.shape(0), [int(size) for size in call.constant(1).reshape(-1)]
    if not wanted or wanted[0] not in (-1, 0, 1) or call.images:
        raise call.refused(_joined(wanted))
    sizes = [
        shape[i] if size == 0 and i < len(shape) else size for i, size in enumerate(wanted[1:])
    ]
    known = math.prod(size for size in sizes if size != -1)
    if sizes.count(-1) == 1 and wanted[0] != -1 and known > 0:
        sizes[sizes.index(-1)] = math.prod(shape) // known
    if math.prod(sizes) != math.prod(shape) or any(size < 1 for size in sizes):
        raise call.refused(_joined(wanted))
    return (("reshape", tuple(sizes)),)


def _joined(shape: list[int]) -> str:
    return (
        f"its shape {shape} joins the axis of images with others; keep images first and alone, "
        "as in [images, windows, ..]"
    )


def _transpose(call: _Call) -> tuple[View, ...]:
    shape, order = call.shape(0), call.attributes.get("perm", ())
    if sorted(order) != list(range(len(shape) + 1)):
        raise call.refused(f"its order {list(order)} is none of {len(shape) + 1} axes")
    own = [axis - (axis > call.images) for axis in order if axis != call.images]
    return (("transpose", tuple(own)),)


def _images_after(call: _Call) -> int:
    """Where the axis of images is after a view; only a Transpose moves it past others."""
    kind, rank = call.node.op_type, len(call.shape(0)) + 1
    if kind == "Transpose":
        order: list[int] = list(call.attributes["perm"])
        return order.index(call.images)
    if not call.images:
        return 0
    if kind == "Gather":
        axis = call.attributes.get("axis", 0) % rank
        return call.images + (call.constant(1).ndim - 1 if axis < call.images else 0)
    if kind == "Squeeze":
        gone = [int(axis) % rank for axis in call.constant(1).reshape(-1)]
        return call.images - sum(axis < call.images for axis in gone)
    if kind in ("Identity", "Slice"):
        return call.images
    raise call.refused("the axis of images does not come first in what it reads")


def _gather(call: _Call) -> tuple[View, ...]:
    shape, index = call.shape(0), call.constant(1)
    axis = call.axis(call.attributes.get("axis", 0), len(shape) + 1)
    if not index.size or not -shape[axis] <= index.min() <= index.max() < shape[axis]:
        raise call.refused(f"it picks beyond the {shape[axis]} that there are")
    taken = tuple(int(i) % shape[axis] for i in index.reshape(-1))
    result = (*shape[:axis], *index.shape, *shape[axis + 1 :])
    return (("take", (axis, *taken)), ("reshape", result))


def _slice(call: _Call) -> tuple[View, ...]:
    shape = call.shape(0)
    starts, ends = call.constant(1).reshape(-1), call.constant(2).reshape(-1)
    given = len(call.operands)
    axes = call.constant(3).reshape(-1) if given > 3 else np.arange(len(starts))
    steps = call.constant(4).reshape(-1) if given > 4 else np.ones_like(starts)
    views: list[View] = []
    for number, *cut in zip(axes, starts, ends, steps, strict=True):
        axis = call.axis(int(number), len(shape) + 1)
        taken = range(shape[axis])[slice(*(int(bound) for bound in cut))]
        if not taken:
            raise call.refused("it takes nothing")
        views.append(("take", (axis, *taken)))
    return tuple(views)


def _squeeze(call: _Call) -> tuple[View, ...]:
    shape = call.shape(0)
    gone = {call.axis(int(axis), len(shape) + 1) for axis in call.constant(1).reshape(-1)}
    if any(shape[axis] != 1 for axis in gone):
        raise call.refused("it drops an axis that is longer than 1")
    return (("reshape", tuple(size for axis, size in enumerate(shape) if axis not in gone)),)


def _flatten(call: _Call) -> tuple[View, ...]:
    if call.attributes.get("axis", 1) != 1:
        raise call.refused("it joins the axis of images with others")
    return (("reshape", (math.prod(call.shape(0)),)),)


def _identity(call: _Call) -> tuple[View, ...]:
    del call
    return ()


def _pack(call: _Call) -> tuple[View, ...]:
    call.same_k(call.shape(0)[-1])
    return ()


_VIEWS: Mapping[tuple[str, str], Callable[[_Call], tuple[View, ...]]] = {
    ("", "Flatten"): _flatten,
    ("", "Gather"): _gather,
    ("", "Identity"): _identity,
    ("", "Reshape"): _reshape,
    ("", "Slice"): _slice,
    ("", "Squeeze"): _squeeze,
    ("", "Transpose"): _transpose,
    (DOMAIN, "PackBits"): _pack,
}


# --- operators: kind and shape of what they write, without the axis of images ---------------------

Reading = Callable[[_Call], tuple[Kind, Shape]]


def _kind(call: _Call) -> Kind:
    operand = next(operand for operand in call.operands if isinstance(operand, Value))
    return operand.kind


def _float(call: _Call) -> tuple[Kind, Shape]:
    return "float", call.shape(0)


def _elementwise(call: _Call) -> tuple[Kind, Shape]:
    rank = max(
        len(operand.shape) + isinstance(operand, Value)
        for operand in call.operands
        if operand is not None
    )
    shapes = [
        (1, *operand.shape) if isinstance(operand, Value) else operand.shape
        for operand in call.operands
        if operand is not None
    ]
    try:
        whole = np.broadcast_shapes(*shapes)
    except ValueError:
        raise call.refused(f"its inputs of {shapes} do not fit") from None
    short = any(
        isinstance(operand, Value) and len(operand.shape) + 1 < rank for operand in call.operands
    )
    if len(whole) != rank or whole[0] != 1 or short:
        raise call.refused("it would change the axis of images")
    kinds = {operand.kind for operand in call.operands if isinstance(operand, Value)}
    return "int" if kinds == {"int"} else "float", whole[1:]


def _concat(call: _Call) -> tuple[Kind, Shape]:
    shapes = [
        operand.shape if isinstance(operand, Value) else operand.shape[1:]
        for operand in call.operands
        if operand is not None
    ]
    axis = call.axis(call.attributes.get("axis", 0), len(shapes[0]) + 1)
    rests = {(*shape[:axis], *shape[axis + 1 :]) for shape in shapes}
    if len(rests) != 1:
        raise call.refused(f"its inputs of {shapes} do not fit")
    total = sum(shape[axis] for shape in shapes)
    return _kind(call), (*shapes[0][:axis], total, *shapes[0][axis + 1 :])


def _padded(call: _Call) -> tuple[Kind, Shape]:
    shape = call.shape(0)
    whole = call.constant(1).reshape(2, -1)
    known = call.attributes.get("mode", "constant") in ("constant", b"constant")
    if not known or len(call.operands) > _PAD_INPUTS or whole.shape[1] != len(shape) + 1:
        raise call.refused("its padding is not that of every axis by a constant")
    if whole.min() < 0 or whole[:, 0].any():
        raise call.refused("it pads the axis of images, or cuts")
    sides = whole[:, 1:].sum(0)
    return "float", tuple(size + int(more) for size, more in zip(shape, sides, strict=True))


def _convolution(call: _Call) -> tuple[Kind, Shape]:
    image, weight = call.shape(0), call.constant(1)
    if len(image) != 1 + _SPATIAL or weight.ndim != len(image) + 1:
        raise call.refused("it is no convolution of pictures")
    groups = int(call.attributes.get("group", 1))
    if weight.shape[1] * groups != image[0] or weight.shape[0] % groups:
        raise call.refused(f"a weight of {list(weight.shape)} meets {image[0]} channels")
    return "float", (weight.shape[0], *_sides(call, image[1:], weight.shape[2:]))


def _sides(call: _Call, picture: Shape, kernel: Shape) -> tuple[int, ...]:
    """How many windows of a kernel there are along each side of a picture."""
    pads = call.attributes.get("pads", (0,) * 4)
    sides = []
    for i, size in enumerate(picture):
        covered = call.attributes.get("dilations", (1, 1))[i] * (kernel[i] - 1) + 1
        stride = call.attributes.get("strides", (1, 1))[i]
        free = size + pads[i] + pads[_SPATIAL + i] - covered
        count = free // stride + 1
        if call.attributes.get("ceil_mode") and free % stride:
            # A window that would begin behind the picture does not count.
            count += count * stride < size + pads[i]
        sides.append(count)
    return tuple(sides)


def _pool(call: _Call) -> tuple[Kind, Shape]:
    """A pool of pictures; how it rounds is stated by an attribute."""
    channels, *shape = call.shape(0)
    kernel = call.attributes.get("kernel_shape", ())
    if len(shape) != _SPATIAL or len(kernel) != _SPATIAL:
        raise call.refused("it is no pool of pictures")
    if call.attributes.get("storage_order"):
        raise call.refused("it numbers what it picks")
    return "float", (channels, *_sides(call, tuple(shape), kernel))


def _global_pool(call: _Call) -> tuple[Kind, Shape]:
    channels, *sides = call.shape(0)
    return "float", (channels, *(1 for _ in sides))


def _resize(call: _Call) -> tuple[Kind, Shape]:
    shape = call.shape(0)
    given = [i for i in (3, 2) if i < len(call.operands) and call.operands[i] is not None]
    if len(shape) != 1 + _SPATIAL or not given or call.attributes.get("axes"):
        raise call.refused("it resizes something else than pictures")
    numbers = call.constant(given[0]).reshape(-1)
    if len(numbers) != len(shape) + 1:
        raise call.refused(f"it resizes by {numbers.tolist()}")
    if given[0] == 3:  # sizes; 2 are scales
        sides = tuple(int(size) for size in numbers[1:])
    else:
        sides = tuple(int(size * scale) for size, scale in zip(shape, numbers[1:], strict=True))
    if sides[0] != shape[0]:
        raise call.refused("it resizes along the channels")
    return "float", sides


def _reduced(call: _Call) -> tuple[Kind, Shape]:
    shape = call.shape(0)
    rank = len(shape) + 1
    given = call.operands[1] if len(call.operands) > 1 else call.attributes.get("axes")
    if given is None or isinstance(given, Value):
        raise call.refused("it does not say along which axes, in numbers")
    gone = {call.axis(int(axis), rank) for axis in np.asarray(given).reshape(-1)}
    if call.attributes.get("keepdims", 1):
        return "float", tuple(1 if i in gone else size for i, size in enumerate(shape))
    left = tuple(size for i, size in enumerate(shape) if i not in gone)
    if not left:
        raise call.refused("it leaves no axis but that of images; keep the axes (keepdims)")
    return "float", left


def _matmul(call: _Call) -> tuple[Kind, Shape]:
    left, right = call.shape(0), call.shape(1)
    constant = isinstance(call.operands[1], np.ndarray)
    if constant and len(right) == len(left) + 1 and right[0] == 1:
        right = right[1:]
    fits = len(right) == 2 if constant else right[:-2] == left[:-2]
    if not isinstance(call.operands[0], Value) or not fits or left[-1] != right[-2]:
        raise call.refused(f"{list(left)} times {list(right)}")
    return "float", (*left[:-1], right[-1])


def _gemm(call: _Call) -> tuple[Kind, Shape]:
    left, right = call.shape(0), call.constant(1)
    inner, outer = right.shape[::-1] if call.attributes.get("transB") else right.shape
    plain = call.attributes.get("alpha", 1) == call.attributes.get("beta", 1) == 1
    if len(left) != 1 or left[0] != inner or call.attributes.get("transA") or not plain:
        raise call.refused(f"{list(left)} times {list(right.shape)} in a form that is not known")
    return "float", (outer,)


def _rows_picked(call: _Call) -> tuple[Kind, Shape]:
    table, index = call.constant(0), call.operands[1]
    if table.ndim != 2 or call.attributes.get("axis", 0) != 0:
        raise call.refused(f"it does not pick rows of a table: {list(table.shape)}")
    if not isinstance(index, Value) or index.kind not in ("int", "index"):
        raise call.refused(_PICKED)
    return "float", (*index.shape, table.shape[1])


def _bits(call: _Call) -> tuple[Kind, Shape]:
    return "bits", call.shape(0)


def _product(call: _Call) -> Shape:
    """Shape of a product of bits with packed weights."""
    shape = call.shape(0)
    call.same_k(shape[-1])
    wanted = (len(call.constant(1)), -(-shape[-1] // 8))
    if call.constant(1).shape != wanted:
        raise call.refused(f"its weight is of {call.constant(1).shape} instead of {wanted}")
    return (*shape[:-1], wanted[0])


def _linear(call: _Call) -> tuple[Kind, Shape]:
    shape = _product(call)
    if len(call.constant(2)) != shape[-1]:
        raise call.refused(f"it has {len(call.constant(2))} scales for {shape[-1]} outputs")
    return "bits", shape


def _integers(call: _Call) -> tuple[Kind, Shape]:
    return "int", _product(call)


def _quantized(call: _Call) -> tuple[Kind, Shape]:
    scale, zero = call.constant(1), call.constant(2)
    if scale.size != 1 or zero.size != 1 or zero.dtype != np.uint8:
        raise call.refused("its codes are no uint8 of one scale and one zero")
    return "bytes", call.shape(0)


def _byte_linear(call: _Call) -> tuple[Kind, Shape]:
    shape, weight = call.shape(0), call.constant(1)
    if weight.ndim != 3 or weight.shape[0] not in (1, 2) or weight.shape[2] != shape[-1]:
        raise call.refused(f"{list(shape)} bytes meet a weight of {list(weight.shape)}")
    return "int", (*shape[:-1], weight.shape[1])


def _cast(call: _Call) -> tuple[Kind, Shape]:
    if call.attributes.get("to") != ir.DataType.FLOAT:
        raise call.refused("it casts to another type than fp32")
    return "float", call.shape(0)


def _residual(call: _Call) -> tuple[Kind, Shape]:
    shape = _linear(call)[1]
    shape = (*shape[:-2], shape[-1], shape[-2]) if call.attributes.get("transposed") else shape
    if call.shape(5) != shape:
        raise call.refused(f"a residual of {list(call.shape(5))} is added to {list(shape)}")
    return "float", shape


def _scores(call: _Call) -> tuple[Kind, Shape]:
    queries, keys = call.shape(0), call.shape(1)
    call.same_k(queries[-1])
    if queries[:-2] != keys[:-2] or queries[-1] != keys[-1]:
        raise call.refused(f"queries of {list(queries)} meet keys of {list(keys)}")
    return "int", (*queries[:-1], keys[-2])


def _max_sim(call: _Call) -> tuple[Kind, Shape]:
    ports = [operand.port for operand in call.operands if isinstance(operand, Value)]
    extents = [port.extent for port in ports if port is not None]
    if len(ports) != len(call.operands) or extents != [False, True]:
        raise call.refused(
            f"its documents are no input [{EXTENT}, vectors, bytes], or its query is no input of "
            "fixed sizes"
        )
    *texts, _, width = call.shape(0)
    wanted = packed_width(call.attributes["k"])
    if not width == call.shape(1)[-1] == wanted or len(texts) > 1 or len(call.shape(1)) != 2:
        raise call.refused(
            f"queries of {list(call.shape(0))} bytes meet documents of {list(call.shape(1))}"
        )
    return "int", tuple(texts)


def _biased_mask(call: _Call) -> tuple[Kind, Shape]:
    scores, bias, excluded = call.shape(0), call.constant(1).shape, call.constant(2).shape
    windows = scores[-4] if len(scores) > 3 else 1
    whole = (windows, 1, *scores[-2:])
    fits = len(excluded) == 4 and all(
        size in (1, most) for size, most in zip(excluded, whole, strict=True)
    )
    if bias != scores[-3:] or not fits:
        raise call.refused(
            f"a bias of {list(bias)} and exclusions of {list(excluded)} meet scores of "
            f"{list(scores)}"
        )
    return "bits", scores


def _mask_product(call: _Call) -> tuple[Kind, Shape]:
    mask, values = call.shape(0), call.shape(1)
    call.same_k(mask[-1])
    if mask[:-2] != values[:-2] or mask[-1] != values[-1]:
        raise call.refused(f"a mask of {list(mask)} meets values of {list(values)}")
    return "int", (*mask[:-1], values[-2])


_CHANNELS_FIRST = frozenset(
    {
        ("", "AveragePool"),
        ("", "Conv"),
        ("", "GlobalAveragePool"),
        ("", "MaxPool"),
        ("", "Resize"),
    }
)
"""Operators that read and write rows x channels here, between views that turn both."""

_OPERATORS: Mapping[tuple[str, str], Reading] = {
    **{("", kind): _elementwise for kind in ("Add", "Div", "Max", "Min", "Mul", "Pow", "Sub")},
    **{
        ("", kind): _float
        for kind in (
            "Abs",
            "BatchNormalization",
            "Clip",
            "Erf",
            "Exp",
            "Gelu",
            "HardSigmoid",
            "HardSwish",
            "LayerNormalization",
            "LeakyRelu",
            "Celu",
            "Elu",
            "Mish",
            "Neg",
            "PRelu",
            "Relu",
            "Selu",
            "Sigmoid",
            "Softmax",
            "Softsign",
            "Sqrt",
            "Tanh",
        )
    },
    **{("", kind): _reduced for kind in ("ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum")},
    ("", "AveragePool"): _pool,
    ("", "Cast"): _cast,
    ("", "Concat"): _concat,
    ("", "Conv"): _convolution,
    ("", "Gather"): _rows_picked,
    ("", "Gemm"): _gemm,
    ("", "GlobalAveragePool"): _global_pool,
    ("", "MatMul"): _matmul,
    ("", "MaxPool"): _pool,
    ("", "Pad"): _padded,
    ("", "QuantizeLinear"): _quantized,
    ("", "Resize"): _resize,
    (DOMAIN, "Binarize"): _bits,
    (DOMAIN, "BinaryLinear"): _integers,
    (DOMAIN, "BinaryLinearResidual"): _residual,
    (DOMAIN, "BinaryLinearThreshold"): _linear,
    (DOMAIN, "BinaryScores"): _scores,
    (DOMAIN, "ByteLinear"): _byte_linear,
    (DOMAIN, "BiasedBestMask"): _biased_mask,
    (DOMAIN, "ElasticMask"): _bits,
    (DOMAIN, "IntegerThreshold"): _bits,
    (DOMAIN, "MaskSignMatMul"): _mask_product,
    _SCAN: _max_sim,
    (DOMAIN, "RowBestMask"): _bits,
    (DOMAIN, "SumThreshold"): _bits,
}


# --- constants, with their axis of images if they have one ----------------------------------------


def _fold_expand(call: _Call) -> Array:
    shape = np.broadcast_shapes(call.shape(0), tuple(int(size) for size in call.constant(1)))
    if math.prod(shape) > _MOST_LISTED:
        raise call.refused(f"its result of {list(shape)} is of no sensible size")
    return np.broadcast_to(call.constant(0), shape)


def _fold_reshape(call: _Call) -> Array:
    array = call.constant(0)
    sizes = [int(size) for size in call.constant(1)]
    return array.reshape(
        [array.shape[i] if size == 0 and i < array.ndim else size for i, size in enumerate(sizes)]
    )


def _fold_concat(call: _Call) -> Array:
    arrays = [call.constant(i) for i in range(len(call.operands))]
    return np.concatenate(arrays, call.attributes.get("axis", 0))


def _fold_transpose(call: _Call) -> Array:
    return call.constant(0).transpose(call.attributes.get("perm"))


_FOLDED: Mapping[str, Callable[[_Call], Array]] = {
    "Concat": _fold_concat,
    "Expand": _fold_expand,
    "Identity": lambda call: call.constant(0),
    "Reshape": _fold_reshape,
    "Transpose": _fold_transpose,
}
