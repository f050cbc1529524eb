"""Operators of ONNX in terms of plainer ones, before they are read.

A transposed convolution is a convolution whose outputs are the places between pixels; a norm of
groups is a layer norm of rows; a signal is a picture of one line. What is written here needs no
shape, rule or kernel of its own. Shapes are those of one image; the axis of images comes first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

import numpy as np
import onnx_ir as ir

from vitc.compiler.graph import EPSILON, Array
from vitc.dialect.metadata import LAYER_KEY

__all__ = ["PLAINER", "Plainer", "plainer"]

_SPATIAL = 2

Shape = tuple[int, ...]


class Plainer:
    """A node, what is known of its operands, and the nodes that take its place.

    Attributes:
        node: The node.
        constants: What its operands hold; None for one that depends on the image, or is missing.
        made: The nodes in its place, in order.
    """

    def __init__(
        self, node: ir.Node, shapes: Sequence[Shape | None], constants: Sequence[Array | None]
    ) -> None:
        self.node, self._shapes, self.constants = node, shapes, constants
        self.attributes = {name: each.value for name, each in node.attributes.items()}
        self.made: list[ir.Node] = []

    @property
    def x(self) -> ir.Value:
        """The first operand."""
        x = self.node.inputs[0]
        assert x is not None  # noqa: S101 - `plainer` has looked
        return x

    def shape(self) -> Shape:
        """Shape of the first operand, of one image."""
        shape = self._shapes[0]
        assert shape is not None  # noqa: S101 - as above
        return shape

    def constant(self, index: int) -> Array | None:
        """A constant operand, if it is one."""
        return self.constants[index] if index < len(self.constants) else None

    def get(self, name: str, default: Any) -> Any:
        """An attribute."""
        found = self.attributes.get(name, default)
        return found.decode() if isinstance(found, bytes) else found

    def axis(self, default: int) -> int:
        """The attribute `axis`, of one image: negative for that of images."""
        axis = int(self.get("axis", default))
        return axis - 1 if axis >= 0 else axis + len(self.shape())

    def add(self, kind: str, *inputs: ir.Value | Array | None, **attributes: Any) -> ir.Value:
        """Append a node, and return its value."""
        given = [self._value(each) if isinstance(each, np.ndarray) else each for each in inputs]
        node = ir.node(kind, given, attributes)
        last = str(self.node.outputs[0].name)
        node.outputs[0].name = f"{last}.{len(self.made)}"
        node.metadata_props[LAYER_KEY] = str(self.node.metadata_props.get(LAYER_KEY, last))
        self.made.append(node)
        return node.outputs[0]

    def reshape(self, value: ir.Value | None, shape: Sequence[int]) -> ir.Value:
        """Another shape of each image."""
        return self.add("Reshape", value, np.array([0, *shape], np.int64))

    def turn(self, value: ir.Value | None, order: Sequence[int]) -> ir.Value:
        """Another order of the axes of each image."""
        return self.add("Transpose", value, perm=[0, *(axis + 1 for axis in order)])

    def pick(self, value: ir.Value | None, axis: int, taken: Sequence[int]) -> ir.Value:
        """Entries along an axis of each image."""
        return self.add("Gather", value, np.array(taken, np.int64), axis=axis + 1)

    @staticmethod
    def _value(array: Array) -> ir.Value:
        return ir.val("constant", const_value=ir.tensor(array))


Rewrite = Callable[[Plainer], Sequence[ir.Value] | None]
"""Appends nodes and returns what stands for each output; None, having added nothing, for a node
that is plain already, or that it does not know."""


def plainer(
    node: ir.Node, shapes: Sequence[Shape | None], constants: Sequence[Array | None]
) -> tuple[list[ir.Node], Sequence[ir.Value]] | None:
    """The nodes that take a node's place, and what stands for its outputs; None for itself.

    Args:
        node: The node.
        shapes: Of its operands: without the axis of images where they depend on the image.
        constants: Operands that are constants.
    """
    rewrite = None if node.domain else PLAINER.get(node.op_type)
    if rewrite is None or not shapes or shapes[0] is None or constants[0] is not None:
        return None
    around = Plainer(node, shapes, constants)
    results = rewrite(around)
    return None if results is None else (around.made, results)


# --- convolutions ---------------------------------------------------------------------------------


def _transposed_convolution(call: Plainer) -> Sequence[ir.Value] | None:
    """As a convolution of stride 1 with an output for each place between pixels.

    Result `y` takes tap `i` of pixel `n` where ``y + p = s n + d i``: with ``y = s q + r`` that is
    pixel ``q + e``, ``e = (r + p - d i) / s``. So each remainder r is a convolution of the picture,
    and all share one window; a tap that a remainder does not have is 0.
    """
    weight, shape = call.constant(1), call.shape()
    if weight is None or weight.ndim != len(shape) + 1 or call.get("auto_pad", "NOTSET") not in (
        "NOTSET",
        "VALID",
    ):  # fmt: skip
        return None
    if len(shape) == _SPATIAL:
        return _on_one_line(call)
    if len(shape) != 1 + _SPATIAL or "output_shape" in call.attributes:
        return None
    groups = int(call.get("group", 1))
    inputs, each, *sides = weight.shape
    if inputs != shape[0] or inputs % groups:
        return None
    axes = [_Remainders.of(call, axis, sides[axis]) for axis in range(_SPATIAL)]
    rows, columns = axes
    outputs = groups * each
    whole = np.zeros(
        (rows.stride, columns.stride, groups, each, inputs // groups, rows.width, columns.width),
        np.float32,
    )
    by_group = weight.reshape(groups, inputs // groups, each, *sides).transpose(0, 2, 1, 3, 4)
    for r, i, t in rows.taps:
        for s, j, u in columns.taps:
            whole[r, s, :, :, :, t, u] = by_group[..., i, j]
    places = (rows.stride, columns.stride)
    if groups == 1:
        # Channels of a result lie together, so that they are a row again.
        whole = whole.reshape(-1, inputs, rows.width, columns.width)
        split, order = (*places, outputs), (2, 3, 0, 4, 1)
    else:
        whole = whole.transpose(2, 3, 0, 1, 4, 5, 6)
        whole = whole.reshape(-1, inputs // groups, rows.width, columns.width)
        split, order = (outputs, *places), (0, 3, 1, 4, 2)
    operands: list[ir.Value | Array | None] = [call.x, whole]
    bias = call.constant(2)
    if bias is not None:
        copies = math.prod(places)
        operands.append(np.tile(bias, copies) if groups == 1 else np.repeat(bias, copies))
    pads = [*(axis.before for axis in axes), *(axis.after for axis in axes)]
    made = call.add(
        "Conv", *operands, group=groups, kernel_shape=[rows.width, columns.width],
        strides=[1, 1], dilations=[1, 1], pads=pads, remainders=1,
    )  # fmt: skip
    counts = [axis.count for axis in axes]
    made = call.turn(call.reshape(made, (*split, *counts)), order)
    made = call.reshape(made, (outputs, *(axis.count * axis.stride for axis in axes)))
    for axis, around in enumerate(axes):
        if around.size < around.count * around.stride:
            made = call.pick(made, 1 + axis, range(around.size))
    return [made]


class _Remainders:
    """A transposed convolution along one axis.

    Attributes:
        stride: Results for each pixel.
        size: Of the result.
        count: Pixels of the convolution's result, each of them `stride` places.
        width: Of the window.
        before: Padding before.
        after: Padding after.
        taps: Remainder, tap of the transposed convolution, and its place in the window.
    """

    def __init__(self, size: int, kernel: int, stride: int, gap: int, cut: tuple[int, int]) -> None:
        begin, end = cut
        found = [
            (r, i, (r + begin - gap * i) // stride)
            for r in range(stride)
            for i in range(kernel)
            if not (r + begin - gap * i) % stride
        ]
        offsets = [e for *_, e in found]
        first, last = min(0, *offsets, 0), max(0, *offsets, 0)
        self.stride, self.width, self.before = stride, last - first + 1, -first
        self.size = (size - 1) * stride + gap * (kernel - 1) + 1 - begin - end
        self.after = max(0, -(-self.size // stride) + self.width - 1 - size - self.before)
        self.count = size + self.before + self.after - self.width + 1
        self.taps = [(r, i, e - first) for r, i, e in found]

    @classmethod
    def of(cls, call: Plainer, axis: int, kernel: int) -> _Remainders:
        def each(name: str, default: int) -> int:
            return int(call.get(name, (default,) * _SPATIAL)[axis])

        pads = call.get("pads", (0,) * 2 * _SPATIAL)
        cut = (pads[axis], pads[_SPATIAL + axis] - each("output_padding", 0))
        size = call.shape()[1 + axis]
        return cls(size, kernel, each("strides", 1), each("dilations", 1), cut)


def _on_one_line(call: Plainer) -> Sequence[ir.Value] | None:
    """Of signals [channels, length], as of pictures of one line."""
    shape = call.shape()
    if len(shape) != _SPATIAL:
        return None
    attributes = dict(call.attributes)
    for name, fill in (
        ("kernel_shape", 1), ("strides", 1), ("dilations", 1), ("output_padding", 0),
        ("output_shape", 1),
    ):  # fmt: skip
        if name in attributes:
            attributes[name] = [fill, *attributes[name]]
    if "pads" in attributes:
        attributes["pads"] = [pad for end in attributes["pads"] for pad in (0, end)]
    weight = call.constant(1)
    operands: list[ir.Value | Array | None] = [
        call.reshape(call.x, (shape[0], 1, shape[1])),
        *call.node.inputs[1:],
    ]
    if weight is not None:
        operands[1] = weight[..., None, :]
    made = call.add(call.node.op_type, *operands, **attributes)
    return [call.add("Squeeze", made, np.array([2], np.int64))]


# --- norms ----------------------------------------------------------------------------------------


def _layer_norm(call: Plainer) -> Sequence[ir.Value] | None:
    """Over several axes: of rows as long as all of these."""
    shape, axis = call.shape(), call.axis(-1)
    gain, bias = call.constant(1), call.constant(2)
    if axis == len(shape) - 1 or not 0 <= axis < len(shape) or gain is None:
        return None
    joined = call.reshape(call.x, (*shape[:axis], math.prod(shape[axis:])))
    vectors = [gain.reshape(-1), *([] if bias is None else [bias.reshape(-1)])]
    made = call.add("LayerNormalization", joined, *vectors, axis=-1, epsilon=_epsilon(call))
    return [call.reshape(made, shape)]


def _instance_norm(call: Plainer) -> Sequence[ir.Value] | None:
    return _group_norm(call, call.shape()[0])


def _groups(call: Plainer) -> Sequence[ir.Value] | None:
    return _group_norm(call, int(call.get("num_groups", 1)))


def _group_norm(call: Plainer, groups: int) -> Sequence[ir.Value] | None:
    """Of groups of channels: a norm of rows, and then gain and bias of each channel."""
    shape, gain, bias = call.shape(), call.constant(1), call.constant(2)
    if gain is None or bias is None or shape[0] % groups:
        return None
    length = math.prod(shape) // groups
    rows = call.reshape(call.x, (groups, length))
    ones = np.ones(length, np.float32)
    made = call.add("LayerNormalization", rows, ones, axis=-1, epsilon=_epsilon(call))
    made = call.reshape(made, shape)
    if gain.size != shape[0]:
        gain, bias = (np.repeat(row, shape[0] // groups) for row in (gain, bias))
    wide = (1, -1, *(1,) * (len(shape) - 1))
    return [call.add("Add", call.add("Mul", made, gain.reshape(wide)), bias.reshape(wide))]


def _epsilon(call: Plainer) -> float:
    return float(call.get("epsilon", EPSILON))


# --- what moves elements --------------------------------------------------------------------------


def _split(call: Plainer) -> Sequence[ir.Value] | None:
    shape, sizes, axis = call.shape(), call.constant(1), call.axis(0)
    if not 0 <= axis < len(shape):
        return None
    if sizes is None:
        count = len(call.node.outputs)
        size = -(-shape[axis] // count)
        sizes = np.array([size] * (count - 1) + [shape[axis] - size * (count - 1)])
    ends = [0, *(int(end) for end in np.cumsum(sizes))]
    if ends[-1] != shape[axis]:
        return None
    return [
        call.pick(call.x, axis, range(start, end))
        for start, end in pairwise(ends)
    ]


def _unsqueeze(call: Plainer) -> Sequence[ir.Value] | None:
    axes, shape = call.constant(1), call.shape()
    if axes is None:
        return None
    rank = len(shape) + 1 + axes.size
    new = sorted(int(axis) % rank for axis in axes.reshape(-1))
    if 0 in new:
        return None
    sizes = iter(shape)
    return [
        call.reshape(
            call.x, [1 if axis in new else next(sizes) for axis in range(1, rank)]
        )
    ]


def _expand(call: Plainer) -> Sequence[ir.Value] | None:
    wanted, shape = call.constant(1), call.shape()
    if wanted is None or wanted.size > len(shape) + 1:
        return None
    sizes = [1] * (len(shape) + 1 - wanted.size) + [int(size) for size in wanted]
    made = call.x
    if sizes[0] != 1:
        return None
    for axis, (size, more) in enumerate(zip(shape, sizes[1:], strict=True)):
        if size == 1 and more > 1:
            made = call.pick(made, axis, [0] * more)
    return [made if call.made else call.add("Identity", made)]


def _tile(call: Plainer) -> Sequence[ir.Value] | None:
    times, shape = call.constant(1), call.shape()
    if times is None or times.size != len(shape) + 1 or times[0] != 1 or times.min() < 1:
        return None
    made = call.x
    for axis, (size, more) in enumerate(zip(shape, times[1:], strict=True)):
        if more > 1:
            made = call.pick(made, axis, list(range(size)) * int(more))
    return [made if call.made else call.add("Identity", made)]


_REPEATING: Final = ("reflect", "edge", "wrap")
"""Modes of padding that repeat elements; numpy calls them the same."""


def _pad(call: Plainer) -> Sequence[ir.Value] | None:
    """What cuts is a pick, and what repeats elements too."""
    shape, sides, mode = call.shape(), call.constant(1), call.get("mode", "constant")
    if sides is None or sides.size != 2 * (len(shape) + 1) or len(call.constants) > 3:
        return None
    before, after = (side[1:].astype(int) for side in sides.reshape(2, -1))
    repeats = mode in _REPEATING
    cuts = min(*before, *after, 0) < 0
    if sides.reshape(2, -1)[:, 0].any() or not (repeats or (cuts and mode == "constant")):
        return None
    made = call.x
    for axis, (size, first, last) in enumerate(zip(shape, before, after, strict=True)):
        taken = np.arange(size)[max(0, -first) : size - max(0, -last)]
        if not taken.size:
            return None
        if repeats:
            around = (max(0, first), max(0, last))
            taken = np.pad(taken, around, mode=mode)
        if not np.array_equal(taken, np.arange(size)):
            made = call.pick(made, axis, taken.tolist())
    if not repeats:
        left = np.maximum(sides, 0)
        filled = call.node.inputs[2] if len(call.node.inputs) > _SPATIAL else None
        made = call.add("Pad", made, left, filled, mode="constant")
    return [made]


def _depth_to_space(call: Plainer) -> Sequence[ir.Value] | None:
    (channels, *sides), side = call.shape(), int(call.get("blocksize", 1))
    left = channels // side**2
    if len(sides) != _SPATIAL:
        return None
    if call.get("mode", "DCR") == "CRD":
        split, order = (left, side, side, *sides), (0, 3, 1, 4, 2)
    else:
        split, order = (side, side, left, *sides), (2, 3, 0, 4, 1)
    made = call.turn(call.reshape(call.x, split), order)
    return [call.reshape(made, (left, *(size * side for size in sides)))]


def _space_to_depth(call: Plainer) -> Sequence[ir.Value] | None:
    (channels, *sides), side = call.shape(), int(call.get("blocksize", 1))
    if len(sides) != _SPATIAL or any(size % side for size in sides):
        return None
    height, width = (size // side for size in sides)
    split = call.reshape(call.x, (channels, height, side, width, side))
    made = call.turn(split, (2, 4, 0, 1, 3))
    return [call.reshape(made, (channels * side**2, height, width))]


# --- sums and shares ------------------------------------------------------------------------------


def _largest_of_all(call: Plainer) -> Sequence[ir.Value] | None:
    axes = np.arange(2, len(call.shape()) + 1)
    return [call.add("ReduceMax", call.x, axes, keepdims=1)]


def _length(call: Plainer) -> Sequence[ir.Value] | None:
    return [call.add("Sqrt", *_squares(call))]


def _squares(call: Plainer) -> Sequence[ir.Value]:
    x = call.x
    keep = int(call.get("keepdims", 1))
    squares = call.add("Mul", x, x)
    return [call.add("ReduceSum", squares, *call.node.inputs[1:], keepdims=keep)]


def _reciprocal(call: Plainer) -> Sequence[ir.Value] | None:
    return [call.add("Div", np.array(1, np.float32), call.x)]


def _sum(call: Plainer) -> Sequence[ir.Value] | None:
    total = call.add("Identity", call.x)
    for other in call.node.inputs[1:]:
        total = call.add("Add", total, other)
    return [total]


PLAINER: Final[Mapping[str, Rewrite]] = {
    "AveragePool": _on_one_line,
    "Conv": _on_one_line,
    "ConvTranspose": _transposed_convolution,
    "DepthToSpace": _depth_to_space,
    "Expand": _expand,
    "GlobalAveragePool": _on_one_line,
    "GlobalMaxPool": _largest_of_all,
    "GroupNormalization": _groups,
    "InstanceNormalization": _instance_norm,
    "LayerNormalization": _layer_norm,
    "MaxPool": _on_one_line,
    "Pad": _pad,
    "Reciprocal": _reciprocal,
    "ReduceL2": _length,
    "ReduceSumSquare": _squares,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Sum": _sum,
    "Tile": _tile,
    "Unsqueeze": _unsqueeze,
}
"""By type of the ONNX operator."""
