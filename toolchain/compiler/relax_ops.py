"""Float operators as Relax expressions: a table, one row an ONNX operator.

Values are without the axis of images, and operators on pictures are channels last (`read`).
Convolution, pooling and resizing are written as tensor expressions: Relax's own want an axis of
images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from tvm import relax, te, tirx

from vitc.compiler.graph import Array, Op, Use, Value, affine_of_norm, refused
from vitc.targets.layouts.views import View, simplified

__all__ = ["RELAX_OPS", "RelaxCall", "viewed"]

_SPATIAL = 2
_HIGHEST = 8
"""Power that is made by multiplications."""


@dataclass(frozen=True)
class RelaxCall:
    """What a row of the table emits with.

    Attributes:
        builder: Of the function.
        op: The operator.
        values: What holds a value.
    """

    builder: relax.BlockBuilder
    op: Op
    values: Mapping[Value, Any]

    def operand(self, index: int) -> Any:
        """An input; a constant is without the axis of images."""
        read = self.op.inputs[index]
        if isinstance(read, Use):
            views = simplified(read.value.shape, read.views)
            return viewed(self.builder, self.values[read.value], views)
        if read is None:
            raise refused(self.op, f"it lacks its input {index}")
        rank = len(self.op.output.shape)
        array = read[0] if read.ndim == rank + 1 and len(read) == 1 else read
        return relax.const(np.ascontiguousarray(array, np.float32))

    def shape(self, index: int) -> tuple[int, ...]:
        """Shape of an input."""
        return self.op.use(index).shape

    def given(self, index: int) -> bool:
        """Whether there is an input."""
        return index < len(self.op.inputs) and self.op.inputs[index] is not None

    def get(self, name: str, default: Any) -> Any:
        """An attribute."""
        return self.op.attributes.get(name, default)

    def axis(self, axis: int) -> int:
        """An axis, counted without that of images."""
        rank = len(self.shape(0)) + 1
        axis = axis + rank if axis < 0 else axis
        if not 1 <= axis < rank:
            raise refused(self.op, "it touches the axis of images, which comes first and alone")
        return axis - 1

    def te(self, function: Callable[..., Any], *arrays: Any) -> Any:
        """A tensor expression of Relax values."""
        return self.builder.emit_te(function, *arrays)


def viewed(builder: relax.BlockBuilder, value: Any, views: Sequence[View]) -> Any:
    """Emit reshapes, transposes and picks."""
    for kind, numbers in views:
        if kind == "reshape":
            value = builder.emit(relax.op.reshape(value, numbers))
        elif kind == "transpose":
            value = builder.emit(relax.op.permute_dims(value, list(numbers)))
        else:
            axis, *rows = numbers
            step = rows[1] - rows[0] if len(rows) > 1 else 1
            # A slice that goes down to the first cannot say where it ends.
            if step > 0 and rows == list(range(rows[0], rows[-1] + 1, step)):
                cut = [rows[0]], [rows[-1] + 1], [step]
                value = builder.emit(relax.op.strided_slice(value, [axis], *cut))
            else:
                value = taken(builder, value, np.array(rows, np.int32), axis)
    return value


def taken(builder: relax.BlockBuilder, value: Any, rows: Array, axis: int) -> Any:
    """Emit a pick of rows; Relax's own warns whoever compiles of rows that there are not."""

    def picked(array: Any, index: Any) -> Any:
        shape = [*array.shape[:axis], index.shape[0], *array.shape[axis + 1 :]]
        return te.compute(
            shape, lambda *at: array(*at[:axis], index[at[axis]], *at[axis + 1 :]), name="T_take"
        )

    return builder.emit_te(picked, value, relax.const(rows), primfunc_name_hint="take")


Row = Callable[[RelaxCall], Any]


def _unary(operator: Callable[[Any], Any]) -> Row:
    return lambda call: operator(call.operand(0))


def _binary(operator: Callable[[Any, Any], Any]) -> Row:
    return lambda call: operator(call.operand(0), call.operand(1))


def _number(value: float) -> Any:
    return relax.const(np.float32(value))


def _gelu(call: RelaxCall) -> Any:
    if call.get("approximate", b"none") in ("tanh", b"tanh"):
        return relax.op.nn.gelu_tanh(call.operand(0))
    return relax.op.nn.gelu(call.operand(0))


def _power(call: RelaxCall) -> Any:
    exponent = call.op.constant(1)
    power = float(exponent.reshape(-1)[0]) if exponent.size == 1 else None
    if power is None or power * 2 != int(power * 2) or not 0 < abs(power) <= _HIGHEST:
        raise refused(
            call.op, f"it raises to another power than n or n / 2, n up to {2 * _HIGHEST}"
        )
    x = call.operand(0)
    whole, half = divmod(abs(power), 1)
    factors = [relax.op.sqrt(x)] if half else []
    while whole:
        if whole % 2:
            factors.append(x)
        x = call.builder.emit(relax.op.multiply(x, x)) if whole > 1 else x
        whole //= 2
    result = factors[0]
    for factor in factors[1:]:
        result = call.builder.emit(relax.op.multiply(result, factor))
    return result if power > 0 else relax.op.divide(_number(1), result)


def _clip(call: RelaxCall) -> Any:
    ends = (-math.inf, math.inf)
    low, high = (
        float(call.op.constant(i).reshape(-1)[0]) if call.given(i) else end
        for i, end in enumerate(ends, 1)
    )
    value = call.operand(0)
    if low > -math.inf:
        value = call.builder.emit(relax.op.maximum(value, _number(low)))
    return relax.op.minimum(value, _number(high)) if high < math.inf else value


def _leaky(call: RelaxCall) -> Any:
    return relax.op.nn.leakyrelu(call.operand(0), float(call.get("alpha", 0.01)))


def _prelu(call: RelaxCall) -> Any:
    x, slope = call.operand(0), call.operand(1)
    below = relax.op.multiply(relax.op.minimum(x, _number(0)), slope)
    return relax.op.add(relax.op.maximum(x, _number(0)), below)


def _elu(call: RelaxCall) -> Any:
    return _exponential(call, float(call.get("alpha", 1)), 1.0, 1.0)


def _celu(call: RelaxCall) -> Any:
    alpha = float(call.get("alpha", 1))
    return _exponential(call, alpha, 1.0, alpha)


def _selu(call: RelaxCall) -> Any:
    gain = float(call.get("gain", 1.0507009873554805))
    return _exponential(call, gain * float(call.get("alpha", 1.6732632423543772)), gain, 1.0)


def _exponential(call: RelaxCall, depth: float, gain: float, length: float) -> Any:
    """`gain x` above 0, and `depth (exp(x / length) - 1)` below."""
    x = call.operand(0)
    below = relax.op.minimum(x, _number(0))
    if length != 1:
        below = relax.op.multiply(below, _number(1 / length))
    curve = relax.op.multiply(relax.op.subtract(relax.op.exp(below), _number(1)), _number(depth))
    above = relax.op.maximum(x, _number(0))
    return relax.op.add(relax.op.multiply(above, _number(gain)) if gain != 1 else above, curve)


def _mish(call: RelaxCall) -> Any:
    # tanh(log(1 + e)) = n / (n + 2), where n = e (e + 2); above 20 it is 1 in fp32.
    x = call.operand(0)
    e = call.builder.emit(relax.op.exp(relax.op.minimum(x, _number(20))))
    n = call.builder.emit(relax.op.multiply(e, relax.op.add(e, _number(2))))
    return relax.op.multiply(x, relax.op.divide(n, relax.op.add(n, _number(2))))


def _softsign(call: RelaxCall) -> Any:
    x = call.operand(0)
    return relax.op.divide(x, relax.op.add(relax.op.abs(x), _number(1)))


def _hard_sigmoid(call: RelaxCall) -> Any:
    slope, shift = float(call.get("alpha", 0.2)), float(call.get("beta", 0.5))
    return _ramp(call, slope, shift)


def _ramp(call: RelaxCall, slope: float, shift: float) -> Any:
    line = relax.op.add(relax.op.multiply(call.operand(0), _number(slope)), _number(shift))
    return relax.op.minimum(relax.op.maximum(line, _number(0)), _number(1))


def _hard_swish(call: RelaxCall) -> Any:
    return relax.op.multiply(call.operand(0), _ramp(call, 1 / 6, 0.5))


def _softmax(call: RelaxCall) -> Any:
    return relax.op.nn.softmax(call.operand(0), axis=call.axis(call.get("axis", -1)))


def _batch_norm(call: RelaxCall) -> Any:
    gain, shift = affine_of_norm(call.op, call.shape(0))
    scaled = relax.op.multiply(call.operand(0), relax.const(gain))
    return relax.op.add(scaled, relax.const(shift))


def _affine(call: RelaxCall) -> Any:
    return relax.op.add(relax.op.multiply(call.operand(0), call.operand(1)), call.operand(2))


def _reduction(operator: Callable[..., Any]) -> Row:
    def emitted(call: RelaxCall) -> Any:
        given = call.op.constant(1) if call.given(1) else call.get("axes", None)
        rank = len(call.shape(0))
        axes = range(1, rank + 1) if given is None else np.asarray(given).reshape(-1)
        own = sorted(call.axis(int(axis)) for axis in axes)
        use = call.op.use(0)
        views = simplified(use.value.shape, use.views)
        if len(views) == 1 and views[0][0] == "transpose":
            order = views[0][1]
            left = [axis for i, axis in enumerate(order) if i not in own]
            if left == sorted(left):
                # What is left lies as in the value before, which need not be turned.
                before = [order[axis] for axis in own]
                return operator(call.values[use.value], axis=before, keepdims=False)
        return operator(call.operand(0), axis=own, keepdims=bool(call.get("keepdims", 1)))

    return emitted


def _concat(call: RelaxCall) -> Any:
    axis = call.get("axis", 0)
    rank = len(call.op.output.shape)
    axis = axis - 1 if axis > 0 else axis + rank
    return relax.op.concat([call.operand(i) for i in range(len(call.op.inputs))], axis=axis)


def _pad(call: RelaxCall) -> Any:
    before = [int(size) for size in call.op.constant(1).reshape(2, -1)[0][1:]]
    filled = float(call.op.constant(2).reshape(())) if call.given(2) else 0.0
    shape = call.op.output.shape

    def pad(x: Any) -> Any:
        def element(*at: Any) -> Any:
            places = [i - first for i, first in zip(at, before, strict=True)]
            # As comparisons of the place in the result, so that the parts of a row are seen.
            inside = [
                tirx.all(i >= first, i < first + int(size))
                for i, size, first, whole in zip(at, x.shape, before, shape, strict=True)
                if first or int(size) != whole
            ]
            value = tirx.const(filled, "float32")
            return (
                tirx.if_then_else(tirx.all(*inside), x[tuple(places)], value) if inside else x[at]
            )

        return te.compute(shape, element, name="pad")

    return call.te(pad, call.operand(0))


# --- pictures, channels last ----------------------------------------------------------------------


@dataclass(frozen=True)
class _Window:
    """What a convolution or a pool reads along height and width."""

    sides: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]

    @classmethod
    def of(cls, call: RelaxCall, sides: Sequence[int]) -> _Window:
        if call.get("auto_pad", "NOTSET") not in ("NOTSET", b"NOTSET", "VALID", b"VALID"):
            raise refused(call.op, "its padding is not stated in numbers")
        pads = tuple(call.get("pads", (0,) * 4))
        ones = (1,) * _SPATIAL
        return cls(
            tuple(sides),
            tuple(call.get("strides", ones)),
            tuple(call.get("dilations", ones)),
            pads[:_SPATIAL],
        )

    def place(self, axis: int, at: Any, tap: Any) -> Any:
        return at * self.strides[axis] + tap * self.dilations[axis] - self.before[axis]

    def axes(self) -> list[Any]:
        return [te.reduce_axis((0, side), f"tap{i}") for i, side in enumerate(self.sides)]

    def read(self, x: Any, at: Sequence[Any], taps: Sequence[Any], c: Any, outside: float) -> Any:
        """An element of a tap; `outside` where it is padding."""
        y, z = (self.place(i, at[i], taps[i]) for i in range(_SPATIAL))
        sizes = [int(size) for size in x.shape[:_SPATIAL]]
        inside = tirx.all(y >= 0, y < sizes[0], z >= 0, z < sizes[1])
        return tirx.if_then_else(inside, x[y, z, c], tirx.const(outside, "float32"))


def _convolution(call: RelaxCall) -> Any:
    weight = call.op.constant(1).astype(np.float32)
    outputs, inputs, *sides = weight.shape
    groups = int(call.get("group", 1))
    window, each = _Window.of(call, sides), outputs // groups
    out_shape = call.op.output.shape

    def convolution(x: Any, w: Any) -> Any:
        taps, k = window.axes(), te.reduce_axis((0, inputs), "k")
        return te.compute(
            out_shape,
            lambda y, z, c: te.sum(
                window.read(
                    x, (y, z), taps, tirx.indexdiv(c, each) * inputs + k if groups > 1 else k, 0.0
                )
                * w[taps[0], taps[1], k, c],
                axis=[*taps, k],
            ),
            name="convolution",
        )

    turned = relax.const(weight.transpose(2, 3, 1, 0).copy())
    result = call.te(convolution, call.operand(0), turned)
    if not call.given(2):
        return result
    return relax.op.add(result, relax.const(call.op.constant(2).astype(np.float32)))


def _max_pool(call: RelaxCall) -> Any:
    window = _Window.of(call, call.op.attributes["kernel_shape"])

    def max_pool(x: Any) -> Any:
        taps = window.axes()
        least = float(np.finfo(np.float32).min)
        return te.compute(
            call.op.output.shape,
            lambda y, z, c: te.max(window.read(x, (y, z), taps, c, least), axis=taps),
            name="max_pool",
        )

    return call.te(max_pool, call.operand(0))


def _average_pool(call: RelaxCall) -> Any:
    window = _Window.of(call, call.op.attributes["kernel_shape"])
    shape, out = call.shape(0), call.op.output.shape
    padded = bool(call.get("count_include_pad", 0))
    rows, columns = (
        [
            sum(
                padded or 0 <= window.place(axis, at, tap) < shape[axis]
                for tap in range(window.sides[axis])
            )
            for at in range(out[axis])
        ]
        for axis in range(_SPATIAL)
    )
    counts = np.outer(rows, columns)

    def average_pool(x: Any) -> Any:
        taps = window.axes()
        return te.compute(
            out,
            lambda y, z, c: te.sum(window.read(x, (y, z), taps, c, 0.0), axis=taps),
            name="average_pool",
        )

    total = call.te(average_pool, call.operand(0))
    if np.all(counts == counts[0, 0]):
        return relax.op.multiply(total, _number(1 / counts[0, 0]))
    return relax.op.multiply(total, relax.const((1 / counts)[..., None].astype(np.float32)))


def _global_pool(call: RelaxCall) -> Any:
    return relax.op.mean(call.operand(0), axis=[0, 1], keepdims=True)


def _resize(call: RelaxCall) -> Any:
    shape, out = call.shape(0), call.op.output.shape
    mode = _text(call.get("mode", "nearest"))
    where = _text(call.get("coordinate_transformation_mode", "half_pixel"))
    if mode not in ("linear", "nearest") or call.get("antialias", 0):
        raise refused(call.op, f"it resizes by {mode}, not linearly or to the nearest")
    scales = call.op.constant(2).reshape(-1)[2:] if call.given(2) else (None, None)
    scales = scales if len(scales) == _SPATIAL else (None, None)
    places = [_places(call.op, where, shape[i], out[i], scales[i]) for i in range(_SPATIAL)]
    if mode == "nearest":
        rounded = _NEAREST.get(_text(call.get("nearest_mode", "round_prefer_floor")))
        if rounded is None:
            raise refused(call.op, "it rounds places in a way that is not known")
        nearest = [rounded(p) for p in places]
        value = call.operand(0)
        for axis in range(_SPATIAL):
            rows = np.clip(nearest[axis], 0, shape[axis] - 1).astype(np.int32)
            value = taken(call.builder, value, rows, axis)
        return value
    constants = []
    for axis in range(_SPATIAL):
        place = np.clip(places[axis], 0, shape[axis] - 1)
        low = np.floor(place)
        high = np.minimum(low + 1, shape[axis] - 1)
        constants += [low.astype(np.int32), high.astype(np.int32), (place - low).astype(np.float32)]

    def resize(x: Any, *tables: Any) -> Any:
        y0, y1, v, x0, x1, u = tables

        def element(i: Any, j: Any, c: Any) -> Any:
            one = tirx.const(1.0, "float32")
            above = x[y0[i], x0[j], c] * (one - u[j]) + x[y0[i], x1[j], c] * u[j]
            below = x[y1[i], x0[j], c] * (one - u[j]) + x[y1[i], x1[j], c] * u[j]
            return above * (one - v[i]) + below * v[i]

        return te.compute(out, element, name="resize")

    return call.te(resize, call.operand(0), *(relax.const(array) for array in constants))


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


_NEAREST: Final[Mapping[str, Callable[[Array], Array]]] = {
    "ceil": np.ceil,
    "floor": np.floor,
    "round_prefer_ceil": lambda places: np.floor(places + 0.5),
    "round_prefer_floor": lambda places: np.ceil(places - 0.5),
}


def _places(op: Op, where: str, size: int, wanted: int, scale: float | None) -> Array:
    at = np.arange(wanted, dtype=np.float64)
    step = size / wanted if scale is None else 1 / float(scale)
    if where in ("half_pixel", "pytorch_half_pixel"):
        moved = (at + 0.5) * step - 0.5
        return moved * 0 if where == "pytorch_half_pixel" and wanted == 1 else moved
    if where == "align_corners":
        return at * (size - 1) / max(wanted - 1, 1)
    if where == "asymmetric":
        return at * step
    raise refused(op, f"it resizes with coordinates {where}")


RELAX_OPS: Final[Mapping[str, Row]] = {
    "Abs": _unary(relax.op.abs),
    "Add": _binary(relax.op.add),
    "Affine": _affine,
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Celu": _celu,
    "Clip": _clip,
    "Concat": _concat,
    "Conv": _convolution,
    "Copy": _unary(lambda value: value),
    "Div": _binary(relax.op.divide),
    "Elu": _elu,
    "Erf": _unary(relax.op.erf),
    "Exp": _unary(relax.op.exp),
    "Gelu": _gelu,
    "GlobalAveragePool": _global_pool,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish,
    "LeakyRelu": _leaky,
    "MatMul": _binary(relax.op.matmul),
    "Max": _binary(relax.op.maximum),
    "MaxPool": _max_pool,
    "Min": _binary(relax.op.minimum),
    "Mish": _mish,
    "Mul": _binary(relax.op.multiply),
    "Neg": _unary(relax.op.negative),
    "PRelu": _prelu,
    "Pad": _pad,
    "Pow": _power,
    "ReduceMax": _reduction(relax.op.max),
    "ReduceMean": _reduction(relax.op.mean),
    "ReduceMin": _reduction(relax.op.min),
    "ReduceSum": _reduction(relax.op.sum),
    "Relu": _unary(relax.op.nn.relu),
    "Resize": _resize,
    "Selu": _selu,
    "Sigmoid": _unary(relax.op.sigmoid),
    "Softmax": _softmax,
    "Softsign": _softsign,
    "Sqrt": _unary(relax.op.sqrt),
    "Sub": _binary(relax.op.subtract),
    "Tanh": _unary(relax.op.tanh),
}
"""By type of the ONNX operator."""
