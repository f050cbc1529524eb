"""From recorded operators to ONNX: one row an operator.

A row builds the nodes that `torch.onnx` would build, in the plainest form. Operators of the dialect
are opaque here; their bodies are added to the finished file. A binary linear becomes
`BinaryLinear(PackBits(bits), PackBits(weight))`, so the graph is valid ONNX from the start, and a
tap becomes a node that `vitc.exporter.taps` turns into a value name. An operator without a row is
translated by `torch.onnx` (`vitc.exporter.single_operator`), which is slow, but knows them all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import onnx_ir as ir
import torch
from onnx_ir import tensor_adapters

import vitc.models.ops  # noqa: F401  (registers the operators of the dialect)
from vitc.dialect import DOMAIN
from vitc.exporter.recording import PerImage, Size, Value

__all__ = ["BATCH", "ROWS", "SIZED", "TAP_OP", "Nodes", "dimension"]

TAP_OP: Final = "Tap"
BATCH: Final = "batch"
_END: Final = np.iinfo(np.int64).max


def dimension(size: Size) -> int | ir.SymbolicDim:
    """A size as a graph writes it."""
    if isinstance(size, int):
        return size
    return ir.SymbolicDim(BATCH if size.count == 1 else f"{size.count}*{BATCH}")


class Nodes:
    """Makes the nodes of a graph.

    Args:
        graph: Where they are put; its first input has the images on its first axis.

    Attributes:
        wanted: What the operator at hand makes; the first, if it makes several.
        results: All that it makes.
    """

    wanted: Value
    results: Sequence[Value]

    def __init__(self, graph: ir.Graph) -> None:
        self.graph = graph
        self._constants: dict[tuple[Any, ...], ir.Value] = {}

    def __call__(
        self, operator: str, *inputs: ir.Value | None, domain: str = "", **attributes: Any
    ) -> ir.Value:
        """Add a node with one output and return that."""
        node = ir.node(operator, list(inputs), attributes, domain=domain)
        self.graph.append(node)
        return node.outputs[0]

    def constant(self, array: Any, dtype: Any = None) -> ir.Value:
        """A constant, the same one for the same values."""
        data = np.asarray(array, dtype)
        key = (data.dtype, data.shape, data.tobytes())
        if key not in self._constants:
            name = f"constant_{len(self._constants)}"
            value = ir.val(name, const_value=ir.tensor(data, name=name))
            self.graph.register_initializer(value)
            self._constants[key] = value
        return self._constants[key]

    def sizes(self, sizes: Sequence[Size]) -> ir.Value:
        """A shape, int64 [rank]."""
        if not any(isinstance(size, PerImage) for size in sizes):
            return self.constant(sizes, np.int64)
        images = self("Shape", self.graph.inputs[0], start=0, end=1)
        parts = []
        for size in sizes:
            if isinstance(size, int):
                parts.append(self.constant([size], np.int64))
            elif size.count == 1:
                parts.append(images)
            else:
                parts.append(self("Mul", images, self.constant([size.count], np.int64)))
        return self("Concat", *parts, axis=0)


Row = Callable[..., ir.Value | Sequence[ir.Value] | None]
"""Called with `Nodes` and the operator's arguments, an `ir.Value` for each tensor. Returns None for
arguments that it does not know; torch.onnx then has them."""


def _rank(value: ir.Value) -> int:
    return len(value.shape or ())


def _whole(shape: ir.Shape | None) -> list[int]:
    return [size if isinstance(size, int) else -1 for size in shape or ()]


def _scalar(nodes: Nodes, value: Any, like: torch.dtype) -> ir.Value:
    """An operand that may be a number of Python, as a value of a type."""
    if isinstance(value, ir.Value):
        wanted = tensor_adapters.from_torch_dtype(like)
        return value if value.dtype in (None, wanted) else nodes("Cast", value, to=wanted)
    return nodes.constant(torch.tensor(value, dtype=like).numpy())


def _arithmetic(operator: str) -> Row:
    def row(nodes: Nodes, x: Any, y: Any, *, alpha: Any = 1) -> ir.Value:
        dtype = nodes.wanted.dtype
        x, y = _scalar(nodes, x, dtype), _scalar(nodes, y, dtype)
        if alpha != 1:
            y = nodes("Mul", y, _scalar(nodes, alpha, dtype))
        return nodes(operator, x, y)

    return row


def _elementwise(operator: str) -> Row:
    def row(nodes: Nodes, x: ir.Value) -> ir.Value:
        return nodes(operator, _scalar(nodes, x, nodes.wanted.dtype))

    return row


def _identity(nodes: Nodes, x: ir.Value, *_: Any, **__: Any) -> ir.Value:
    return nodes("Identity", x)


def _dropout(nodes: Nodes, x: ir.Value, _: float, training: bool) -> ir.Value | None:
    return None if training else nodes("Identity", x)


def _cast(nodes: Nodes, x: ir.Value, *_: Any, **__: Any) -> ir.Value:
    wanted = tensor_adapters.from_torch_dtype(nodes.wanted.dtype)
    return nodes("Identity", x) if x.dtype == wanted else nodes("Cast", x, to=wanted)


def _reshape(nodes: Nodes, x: ir.Value, *_: Any) -> ir.Value:
    # What can be a constant shape becomes one when the graph is tidied.
    return nodes("Reshape", x, nodes.sizes(nodes.wanted.shape), allowzero=1)


def _expand(nodes: Nodes, x: ir.Value, *_: Any, **__: Any) -> ir.Value:
    return nodes("Expand", x, nodes.sizes(nodes.wanted.shape))


def _filled(number: float) -> Row:
    def row(nodes: Nodes, *_: Any, **__: Any) -> ir.Value:
        return nodes(
            "Expand",
            _scalar(nodes, number, nodes.wanted.dtype),
            nodes.sizes(nodes.wanted.shape),
        )

    return row


def _swapped(nodes: Nodes, x: ir.Value, one: int, other: int) -> ir.Value:
    order = list(range(_rank(x)))
    if order:
        order[one], order[other] = order[other], order[one]
    return nodes("Transpose", x, perm=order)


def _turned(nodes: Nodes, x: ir.Value) -> ir.Value:
    return _swapped(nodes, x, -1, -2) if _rank(x) > 1 else nodes("Identity", x)


def _permute(nodes: Nodes, x: ir.Value, order: Sequence[int]) -> ir.Value:
    return nodes("Transpose", x, perm=[axis % _rank(x) for axis in order])


def _cat(nodes: Nodes, parts: Sequence[ir.Value], axis: int = 0) -> ir.Value:
    cast = [_scalar(nodes, part, nodes.wanted.dtype) for part in parts]
    return nodes("Concat", *cast, axis=axis)


def _slice(
    nodes: Nodes,
    x: ir.Value,
    axis: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> ir.Value:
    bounds = (0 if start is None else start, _END if end is None else end, axis, step)
    return nodes("Slice", x, *(nodes.constant([bound], np.int64) for bound in bounds))


def _select(nodes: Nodes, x: ir.Value, axis: int, index: int) -> ir.Value:
    return nodes("Gather", x, nodes.constant(index, np.int64), axis=axis)


def _linear(nodes: Nodes, x: ir.Value, weight: ir.Value, bias: ir.Value | None = None) -> ir.Value:
    if _rank(x) == 2 and bias is not None:
        return nodes("Gemm", x, weight, bias, alpha=1.0, beta=1.0, transA=0, transB=1)
    product = nodes("MatMul", x, nodes("Transpose", weight, perm=[1, 0]))
    return product if bias is None else nodes("Add", product, bias)


def _conv2d(
    nodes: Nodes,
    x: ir.Value,
    weight: ir.Value,
    bias: ir.Value | None = None,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    groups: int = 1,
) -> ir.Value:
    return _convolution(nodes, "Conv", (x, weight, bias), stride, padding, dilation, groups)


def _convolution(
    nodes: Nodes,
    kind: str,
    operands: tuple[ir.Value, ir.Value, ir.Value | None],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    **more: Any,
) -> ir.Value:
    x, weight, bias = operands
    window = {
        "auto_pad": "NOTSET",
        "dilations": _pair(dilation),
        "group": groups,
        "kernel_shape": _whole(weight.shape)[2:],
        **more,
        "pads": _pair(padding) * 2,
        "strides": _pair(stride),
    }
    return nodes(kind, x, weight, *(() if bias is None else (bias,)), **window)


def _pair(sizes: Sequence[int]) -> list[int]:
    return list(sizes) * (2 // len(sizes))


def _batch_norm(
    nodes: Nodes,
    x: ir.Value,
    weight: ir.Value | None,
    bias: ir.Value | None,
    mean: ir.Value | None,
    variance: ir.Value | None,
    training: bool,
    momentum: float,
    epsilon: float,
    _: bool,
) -> ir.Value | None:
    if training or any(each is None for each in (weight, bias, mean, variance)):
        return None
    # The running mean keeps its share in ONNX, in PyTorch it gives it away.
    return nodes(
        "BatchNormalization", x, weight, bias, mean, variance,
        epsilon=epsilon, momentum=1.0 - momentum,
    )  # fmt: skip


def _layer_norm(
    nodes: Nodes,
    x: ir.Value,
    shape: Sequence[int],
    weight: ir.Value | None = None,
    bias: ir.Value | None = None,
    epsilon: float = 1e-5,
    _: bool = True,
) -> ir.Value | None:
    if weight is None:
        return None
    inputs = (x, weight) if bias is None else (x, weight, bias)
    return nodes("LayerNormalization", *inputs, axis=-len(shape), epsilon=epsilon)


def _softmax(nodes: Nodes, x: ir.Value, axis: int, *_: Any, **__: Any) -> ir.Value:
    return nodes("Softmax", _scalar(nodes, x, nodes.wanted.dtype), axis=axis)


def _prelu(nodes: Nodes, x: ir.Value, slope: ir.Value) -> ir.Value:
    if _rank(x) < 2:
        return nodes("PRelu", x, slope)
    shape = nodes.constant([1, -1, *[1] * (_rank(x) - 2)], np.int64)
    return nodes("PRelu", x, nodes("Reshape", slope, shape))


def _index_select(nodes: Nodes, x: ir.Value, axis: int, index: ir.Value) -> ir.Value:
    return nodes("Gather", x, index, axis=axis)


def _prelu_kernel(nodes: Nodes, x: ir.Value, slope: ir.Value) -> ir.Value:
    return nodes("PRelu", x, slope)


def _mean(nodes: Nodes, x: ir.Value, axes: Sequence[int], keep: bool = False, **_: Any) -> ir.Value:
    return nodes("ReduceMean", x, nodes.constant(axes, np.int64), keepdims=int(keep))


def _roll(nodes: Nodes, x: ir.Value, shifts: Sequence[int], axes: Sequence[int] = ()) -> Any:
    shape = _whole(x.shape)
    if not axes or any(shape[axis] < 0 for axis in axes):
        return None
    for shift, axis in zip(shifts, axes, strict=True):
        cut = -shift % shape[axis]
        if cut:
            x = nodes(
                "Concat", _slice(nodes, x, axis, cut), _slice(nodes, x, axis, 0, cut), axis=axis
            )
    return x


def _max_pool(
    nodes: Nodes,
    x: ir.Value,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,),
    ceil: bool = False,
) -> ir.Value | None:
    steps, before, spread = _pair(stride or kernel), _pair(padding), _pair(dilation)
    sides, made = _whole(x.shape)[2:], nodes.wanted.shape[2:]
    if _rank(x) != 4 or min(sides) < 0:
        return None
    # What is rounded up is written as padding, which every reader knows.
    covered = [
        (count - 1) * step + gap * (size - 1) + 1
        for count, step, gap, size in zip(made, steps, spread, _pair(kernel), strict=True)
        if isinstance(count, int)
    ]
    after = [
        max(0, far - side - pad) if ceil else pad
        for far, side, pad in zip(covered, sides, before, strict=True)
    ]
    return nodes(
        "MaxPool",
        x,
        auto_pad="NOTSET",
        ceil_mode=0,
        dilations=spread,
        kernel_shape=_pair(kernel),
        pads=[*before, *after],
        storage_order=0,
        strides=steps,
    )


def _pad(
    nodes: Nodes,
    x: ir.Value,
    sizes: Sequence[int],
    mode: str = "constant",
    value: float | None = None,
) -> ir.Value | None:
    if mode != "constant" or min(sizes) < 0 or not nodes.wanted.dtype.is_floating_point:
        return None
    # PyTorch counts axes from the last one, and names both sides of each together.
    sides = np.zeros((2, _rank(x)), np.int64)
    pairs = np.reshape(sizes, (-1, 2))[::-1].T
    sides[:, _rank(x) - pairs.shape[1] :] = pairs
    filled = _scalar(nodes, value or 0.0, nodes.wanted.dtype)
    return nodes("Pad", x, nodes.constant(sides.reshape(-1)), filled, mode="constant")


def _gelu(nodes: Nodes, x: ir.Value, *, approximate: str = "none") -> ir.Value:
    def number(value: float) -> ir.Value:
        return _scalar(nodes, value, nodes.wanted.dtype)

    if approximate == "none":
        inner = nodes("Erf", nodes("Div", x, number(2.0**0.5)))
    else:
        cubed = nodes("Mul", number(0.044715), nodes("Pow", x, number(3)))
        inner = nodes("Tanh", nodes("Mul", number((2 / np.pi) ** 0.5), nodes("Add", x, cubed)))
    half = nodes("Mul", number(0.5), nodes("Add", inner, number(1)))
    return nodes("Mul", x, half)


def _silu(nodes: Nodes, x: ir.Value) -> ir.Value:
    return nodes("Mul", x, nodes("Sigmoid", x))


def _leaky_relu(nodes: Nodes, x: ir.Value, slope: float = 0.01) -> ir.Value:
    return nodes("LeakyRelu", x, alpha=float(slope))


def _elu(
    nodes: Nodes, x: ir.Value, alpha: float = 1.0, scale: float = 1.0, steep: float = 1.0
) -> ir.Value | None:
    return nodes("Elu", x, alpha=float(alpha)) if scale == steep == 1 else None


def _hard_sigmoid(nodes: Nodes, x: ir.Value) -> ir.Value:
    return nodes("HardSigmoid", x, alpha=1 / 6, beta=0.5)


def _clip(nodes: Nodes, x: ir.Value, low: Any = None, high: Any = None) -> ir.Value | None:
    if isinstance(low, ir.Value) or isinstance(high, ir.Value):
        return None
    ends = (None if end is None else _scalar(nodes, end, nodes.wanted.dtype) for end in (low, high))
    return nodes("Clip", x, *ends)


def _hardtanh(nodes: Nodes, x: ir.Value, low: float = -1.0, high: float = 1.0) -> ir.Value | None:
    return _clip(nodes, x, low, high)


def _parts(nodes: Nodes, x: ir.Value, _: Any, axis: int = 0) -> list[ir.Value] | None:
    ends = [0]
    for part in nodes.results:
        size = part.shape[axis]
        if not isinstance(size, int):
            return None
        ends.append(ends[-1] + size)
    return [_slice(nodes, x, axis, start, end) for start, end in pairwise(ends)]


def _unbind(nodes: Nodes, x: ir.Value, axis: int = 0) -> list[ir.Value]:
    return [_select(nodes, x, axis, index) for index in range(len(nodes.results))]


def _stack(nodes: Nodes, parts: Sequence[ir.Value], axis: int = 0) -> ir.Value:
    place = nodes.constant([axis], np.int64)
    return nodes("Concat", *(nodes("Unsqueeze", part, place) for part in parts), axis=axis)


def _conv_transpose2d(
    nodes: Nodes,
    x: ir.Value,
    weight: ir.Value,
    bias: ir.Value | None = None,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
    more: Sequence[int] = (0, 0),
    groups: int = 1,
    dilation: Sequence[int] = (1, 1),
) -> ir.Value:
    return _convolution(
        nodes, "ConvTranspose", (x, weight, bias), stride, padding, dilation, groups,
        output_padding=_pair(more),
    )  # fmt: skip


def _avg_pool(
    nodes: Nodes,
    x: ir.Value,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    ceil: bool = False,
    counts: bool = True,
    divisor: int | None = None,
) -> ir.Value | None:
    if ceil or _rank(x) != 4:
        return None
    sides = _pair(kernel)
    # A divisor of its own divides what padding takes part in.
    counts = counts or divisor is not None
    mean = nodes(
        "AveragePool",
        x,
        auto_pad="NOTSET",
        ceil_mode=0,
        count_include_pad=int(counts),
        kernel_shape=sides,
        pads=_pair(padding) * 2,
        strides=_pair(stride or kernel),
    )
    if divisor is None:
        return mean
    share = float(np.prod(sides)) / divisor
    return nodes("Mul", mean, _scalar(nodes, share, nodes.wanted.dtype))


def _adaptive_avg_pool(nodes: Nodes, x: ir.Value, _: Any) -> ir.Value | None:
    shape, sizes = _whole(x.shape), nodes.wanted.shape[-2:]
    pairs = list(zip(shape[-2:], sizes, strict=True))
    if _rank(x) != 4 or not all(isinstance(n, int) and size % n == 0 for size, n in pairs):
        return None
    sides = [size // n for size, n in pairs if isinstance(n, int)]
    if sides == shape[-2:]:
        return nodes("ReduceMean", x, nodes.constant([2, 3], np.int64), keepdims=1)
    return nodes("AveragePool", x, kernel_shape=sides, strides=sides)


def _resized(where: str, aligned: str | None, **attributes: Any) -> Row:
    """Of `upsample_*.vec`: by sizes, or by the scales that say where pixels lie."""

    def row(nodes: Nodes, x: ir.Value, _: Any, *rest: Any) -> ir.Value | None:
        *corners, scales = rest
        sizes = nodes.wanted.shape
        if any(not isinstance(size, int) for size in sizes[1:]):
            return None
        place = aligned if corners and corners[0] else where
        if scales is not None:
            by = nodes.constant([1.0, 1.0, *scales], np.float32)
            operands: tuple[ir.Value | None, ...] = (None, by)
        else:
            images = nodes("Shape", x, start=0, end=2)
            sides = nodes.constant(list(sizes[2:]), np.int64)
            operands = (None, None, nodes("Concat", images, sides, axis=0))
        return nodes("Resize", x, *operands, coordinate_transformation_mode=place, **attributes)

    return row


def _pixel_shuffle(nodes: Nodes, x: ir.Value, side: int) -> ir.Value | None:
    return nodes("DepthToSpace", x, blocksize=side, mode="CRD") if _rank(x) == 4 else None


def _attention(
    nodes: Nodes,
    q: ir.Value,
    k: ir.Value,
    v: ir.Value,
    mask: ir.Value | None = None,
    dropped: float = 0.0,
    causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> ir.Value | None:
    whole = mask is None or mask.dtype == ir.DataType.FLOAT
    if causal or dropped or enable_gqa or not whole:
        return None
    share = _whole(q.shape)[-1] ** -0.5 if scale is None else scale
    turned = _swapped(nodes, k, -1, -2)
    scores = nodes("MatMul", nodes("Mul", q, _scalar(nodes, share, nodes.wanted.dtype)), turned)
    if mask is not None:
        scores = nodes("Add", scores, mask)
    return nodes("MatMul", nodes("Softmax", scores, axis=-1), v)


def _packed(nodes: Nodes, bits: ir.Value) -> tuple[ir.Value, int]:
    k = _whole(bits.shape)[-1]
    return nodes("PackBits", bits, domain=DOMAIN, k=k), k


def _binarize(nodes: Nodes, x: ir.Value) -> ir.Value:
    zero, flip = nodes.constant(0.0, np.float32), nodes.constant(False)
    return nodes("Binarize", x, zero, flip, domain=DOMAIN)


def _contraction(operator: str) -> Row:
    def row(nodes: Nodes, bits: ir.Value, other: ir.Value) -> ir.Value:
        (x, k), (w, _) = _packed(nodes, bits), _packed(nodes, other)
        return nodes(operator, x, w, domain=DOMAIN, k=k)

    return row


def _byte_linear(nodes: Nodes, x: ir.Value, weight: ir.Value) -> ir.Value:
    return nodes("ByteLinear", x, weight, domain=DOMAIN)


def _softmax_mask(nodes: Nodes, p: ir.Value, ratio: float) -> ir.Value:
    return nodes("SoftmaxMask", p, domain=DOMAIN, ratio=ratio)


def _row_best_mask(nodes: Nodes, scores: ir.Value, slack: int) -> ir.Value:
    return nodes("RowBestMask", scores, domain=DOMAIN, slack=slack)


def _biased_best_mask(
    nodes: Nodes, scores: ir.Value, bias: ir.Value, excluded: ir.Value, cut: float
) -> ir.Value:
    return nodes("BiasedBestMask", scores, bias, excluded, domain=DOMAIN, cut=cut)


def _elastic_mask(nodes: Nodes, scores: ir.Value, *tables: ir.Value) -> ir.Value:
    return nodes("ElasticMask", scores, *tables, domain=DOMAIN)


def _sum_threshold(nodes: Nodes, x: ir.Value, *summands: ir.Value) -> ir.Value:
    return nodes("SumThreshold", x, *summands, domain=DOMAIN)


def _mask_sign_matmul(nodes: Nodes, mask: ir.Value, v: ir.Value) -> ir.Value:
    rank = _rank(v)
    by_token = nodes("Transpose", v, perm=[*range(rank - 2), rank - 1, rank - 2])
    rows, tokens = _packed(nodes, mask)
    columns = nodes("PackBits", by_token, domain=DOMAIN, k=tokens)
    return nodes("MaskSignMatMul", rows, columns, domain=DOMAIN, k=tokens)


def _quantize(nodes: Nodes, x: ir.Value, scale: float, zero: int) -> ir.Value:
    step, middle = nodes.constant(scale, np.float32), nodes.constant(zero, np.uint8)
    return nodes("QuantizeLinear", x, step, middle)


def _tap(nodes: Nodes, x: ir.Value, name: str) -> ir.Value:
    return nodes(TAP_OP, x, domain=DOMAIN, name=name)


_aten, _own = torch.ops.aten, torch.ops.vitc

_SIZED_ROWS: Final[Mapping[Any, Row]] = {
    _aten.flatten.using_ints: _reshape,
    _aten.unflatten.int: _reshape,
    _aten.reshape.default: _reshape,
    _aten.view.default: _reshape,
    _aten.squeeze.dim: _reshape,
    _aten.squeeze.dims: _reshape,
    _aten.unsqueeze.default: _reshape,
    _aten.expand.default: _expand,
    _aten.expand_as.default: _expand,
    _aten.zeros.default: _filled(0),
    _aten.new_zeros.default: _filled(0),
    _aten.zeros_like.default: _filled(0),
    _aten.ones.default: _filled(1),
    _aten.new_ones.default: _filled(1),
    _aten.ones_like.default: _filled(1),
}

SIZED: Final = frozenset(_SIZED_ROWS)
"""Operators whose numbers are sizes of what they make; the only ones that may grow with images."""

ROWS: Final[Mapping[Any, Row]] = MappingProxyType(
    {
        **_SIZED_ROWS,
        _own.binarize.default: _binarize,
        _own.binary_linear.default: _contraction("BinaryLinear"),
        _own.binary_scores.default: _contraction("BinaryScores"),
        _own.byte_linear.default: _byte_linear,
        _own.softmax_mask.default: _softmax_mask,
        _own.row_best_mask.default: _row_best_mask,
        _own.biased_best_mask.default: _biased_best_mask,
        _own.elastic_mask.default: _elastic_mask,
        _own.sum_threshold.default: _sum_threshold,
        _own.mask_sign_matmul.default: _mask_sign_matmul,
        _own.quantize.default: _quantize,
        _own.tap.default: _tap,
        _aten.add.Tensor: _arithmetic("Add"),
        _aten.sub.Tensor: _arithmetic("Sub"),
        _aten.mul.Tensor: _arithmetic("Mul"),
        _aten.div.Tensor: _arithmetic("Div"),
        _aten.matmul.default: _arithmetic("MatMul"),
        _aten.bmm.default: _arithmetic("MatMul"),
        _aten.neg.default: _elementwise("Neg"),
        _aten.abs.default: _elementwise("Abs"),
        _aten.exp.default: _elementwise("Exp"),
        _aten.erf.default: _elementwise("Erf"),
        _aten.sqrt.default: _elementwise("Sqrt"),
        _aten.sigmoid.default: _elementwise("Sigmoid"),
        _aten.tanh.default: _elementwise("Tanh"),
        _aten.relu.default: _elementwise("Relu"),
        _aten.sin.default: _elementwise("Sin"),
        _aten.gelu.default: _gelu,
        _aten.silu.default: _silu,
        _aten.hardswish.default: _elementwise("HardSwish"),
        _aten.hardsigmoid.default: _hard_sigmoid,
        _aten.mish.default: _elementwise("Mish"),
        _aten.leaky_relu.default: _leaky_relu,
        _aten.elu.default: _elu,
        _aten.relu6.default: lambda nodes, x: _clip(nodes, x, 0.0, 6.0),
        _aten.clamp.default: _clip,
        _aten.hardtanh.default: _hardtanh,
        _aten.prelu.default: _prelu,
        _aten._prelu_kernel.default: _prelu_kernel,
        _aten.mean.dim: _mean,
        _aten.max_pool2d.default: _max_pool,
        _aten.avg_pool2d.default: _avg_pool,
        _aten.adaptive_avg_pool2d.default: _adaptive_avg_pool,
        _aten.upsample_bilinear2d.vec: _resized(
            "pytorch_half_pixel", "align_corners", mode="linear"
        ),
        _aten.upsample_nearest2d.vec: _resized(
            "asymmetric", None, mode="nearest", nearest_mode="floor"
        ),
        _aten.pixel_shuffle.default: _pixel_shuffle,
        _aten.scaled_dot_product_attention.default: _attention,
        _aten.pad.default: _pad,
        _aten.roll.default: _roll,
        _aten.softmax.int: _softmax,
        _aten.linear.default: _linear,
        _aten.conv2d.default: _conv2d,
        _aten.conv_transpose2d.input: _conv_transpose2d,
        _aten.batch_norm.default: _batch_norm,
        _aten.layer_norm.default: _layer_norm,
        _aten.to.dtype: _cast,
        _aten.to.dtype_layout: _cast,
        _aten.to.device: _cast,
        _aten.to.other: _cast,
        _aten.type_as.default: _cast,
        _aten.clone.default: _identity,
        _aten.contiguous.default: _identity,
        _aten.dropout.default: _dropout,
        _aten.transpose.int: _swapped,
        _aten.t.default: _turned,
        _aten.mT.default: _turned,
        _aten.permute.default: _permute,
        _aten.cat.default: _cat,
        _aten.stack.default: _stack,
        _aten.chunk.default: _parts,
        _aten.split.Tensor: _parts,
        _aten.split.sizes: _parts,
        _aten.split_with_sizes.default: _parts,
        _aten.unbind.int: _unbind,
        _aten.slice.Tensor: _slice,
        _aten.select.int: _select,
        _aten.index_select.default: _index_select,
    }
)
