"""Bodies of the dialect's operators in standard ONNX, so that any runtime runs the file.

With bits a in {0, 1} and signs W in {+1, -1}, a contraction of two sign vectors is
`I = sum_k (2 a_k - 1) W_k = 2 (a . W) - sum_k W_k`. `a . W` is MatMulInteger of uint8 and int8,
the pair of types for which ONNX Runtime has fast kernels (int8 by int8 is some 20 times slower).
Unpacking a weight depends on constants only, so the runtime folds it when it loads the file.

Here k is an attribute of the function that each body hands on to a Constant node.
"""

# ruff: noqa: N802, RET504, A001 - operators are named as in ONNX, and a return names the output
# Annotations here are ONNX types while the values are symbolic.
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxscript
from onnxscript import BOOL, FLOAT, INT8, INT32, INT64, UINT8, script
from onnxscript.values import Opset

from vitc.dialect.naming import name_body
from vitc.dialect.ops import DOMAIN, IR_VERSION, OPS, OPSET, VERSION

__all__ = ["function_protos", "functions", "set_functions"]

op: Any = onnxscript.opset21


def _dialect(body: Callable[..., Any]) -> Any:
    return script(Opset(DOMAIN, VERSION), default_opset=op)(body)


_BYTES = np.arange(256, dtype=np.uint8)[:, None]
_BITS_OF_BYTE = onnx.numpy_helper.from_array(
    np.unpackbits(_BYTES, axis=1, bitorder="little"), "bits_of_byte"
)
_POWERS = onnx.numpy_helper.from_array(np.array([[128], [1]], np.int32), "powers")
_MIDDLE = onnx.numpy_helper.from_array(np.array(128, np.int32), "middle")
_MIDDLE_BYTE = onnx.numpy_helper.from_array(np.array(128, np.uint8), "middle_byte")
_NEVER = onnx.numpy_helper.from_array(np.array(-np.inf, np.float32), "never")
_BIT_VALUES = onnx.numpy_helper.from_array(
    (2.0 ** np.arange(8, dtype=np.float32))[:, None], "bit_values"
)
_INT8 = int(onnx.TensorProto.INT8)
_UINT8 = int(onnx.TensorProto.UINT8)
_INT32 = int(onnx.TensorProto.INT32)
_FLOAT = int(onnx.TensorProto.FLOAT)
_BOOL = int(onnx.TensorProto.BOOL)


@_dialect
def PackBits(bits: UINT8, k: int) -> UINT8:
    tail = op.Mod(op.Neg(op.Constant(value_int=k)), op.Constant(value_int=8))
    pads = op.Concat(
        op.Constant(value_ints=[0]), op.Reshape(tail, op.Constant(value_ints=[1])), axis=0
    )
    padded = op.Pad(bits, pads, None, op.Constant(value_ints=[-1]))
    lead = op.Shape(bits, start=0, end=-1)
    octets = op.Reshape(padded, op.Concat(lead, op.Constant(value_ints=[-1, 8]), axis=0))
    sums = op.MatMul(op.Cast(octets, to=_FLOAT), op.Constant(value=_BIT_VALUES))
    packed = op.Squeeze(op.Cast(sums, to=_UINT8), op.Constant(value_ints=[-1]))
    return packed


@_dialect
def UnpackBits(packed: UINT8, k: int) -> UINT8:
    octets = op.Gather(op.Constant(value=_BITS_OF_BYTE), op.Cast(packed, to=_INT32))
    lead = op.Shape(packed, start=0, end=-1)
    padded = op.Reshape(octets, op.Concat(lead, op.Constant(value_ints=[-1]), axis=0))
    end = op.Reshape(op.Constant(value_int=k), op.Constant(value_ints=[1]))
    bits = op.Slice(padded, op.Constant(value_ints=[0]), end, op.Constant(value_ints=[-1]))
    return bits


@_dialect
def Binarize(x: FLOAT, threshold: FLOAT, flip: BOOL) -> UINT8:
    bits = op.Cast(op.Xor(op.GreaterOrEqual(x, threshold), flip), to=_UINT8)
    return bits


@_dialect
def BinaryLinear(x: UINT8, weight: UINT8, k: int) -> INT32:
    weight_bits = op.Cast(UnpackBits(weight, k=k), to=_INT8)
    one = op.Cast(op.Constant(value_int=1), to=_INT8)
    signs = op.Transpose(op.Sub(op.Add(weight_bits, weight_bits), one), perm=[1, 0])
    column_sums = op.ReduceSum(op.Cast(signs, to=_INT32), op.Constant(value_ints=[0]), keepdims=0)
    dot = op.MatMulInteger(UnpackBits(x, k=k), signs)
    integers = op.Sub(op.Add(dot, dot), column_sums)
    return integers


@_dialect
def BinaryLinearThreshold(
    x: UINT8, weight: UINT8, scale: FLOAT, offset: FLOAT, upper: FLOAT, lower: FLOAT, k: int
) -> UINT8:
    scaled = op.Mul(op.Cast(BinaryLinear(x, weight, k=k), to=_FLOAT), scale)
    one = op.Constant(value_ints=[1])
    rest = op.Constant(value_ints=[-1])
    two = op.Constant(value_ints=[2])
    keep_rows = op.Constant(value_ints=[0, -1])
    upper_groups = op.Concat(one, op.Shape(upper, start=1, end=2), rest, axis=0)
    upper_sum = op.Add(op.Reshape(offset, upper_groups), op.Unsqueeze(upper, two))
    above = op.GreaterOrEqual(scaled, op.Reshape(upper_sum, keep_rows))
    lower_groups = op.Concat(one, op.Shape(lower, start=1, end=2), rest, axis=0)
    lower_sum = op.Add(op.Reshape(offset, lower_groups), op.Unsqueeze(lower, two))
    below = op.LessOrEqual(scaled, op.Reshape(lower_sum, keep_rows))
    bits = op.Cast(op.Or(above, below), to=_UINT8)
    return bits


@_dialect
def BinaryLinearResidual(
    x: UINT8,
    weight: UINT8,
    scale: FLOAT,
    bias: FLOAT,
    gain: FLOAT,
    residual: FLOAT,
    k: int,
    transposed: int,
) -> FLOAT:
    scaled = op.Mul(op.Cast(BinaryLinear(x, weight, k=k), to=_FLOAT), scale)
    product = op.Mul(op.Add(scaled, bias), gain)
    matrices = op.Reshape(
        product, op.Concat(op.Constant(value_ints=[-1]), op.Shape(product, start=-2), axis=0)
    )
    if op.Cast(op.Constant(value_int=transposed), to=_BOOL):
        turned = op.Transpose(matrices, perm=[0, 2, 1])
    else:
        turned = op.Identity(matrices)
    branch = op.Reshape(turned, op.Shape(residual))
    sum = op.Add(residual, branch)
    return sum


@_dialect
def ByteLinear(x: UINT8, weight: INT8) -> INT32:
    # Both operands without a sign: of uint8 by int8, ONNX Runtime adds two products in 16 bits
    # where a processor has no dot product, and what is beyond them is lost.
    moved = op.Cast(op.Add(op.Cast(weight, to=_INT32), op.Constant(value=_MIDDLE)), to=_UINT8)
    length = op.Shape(weight, start=2, end=3)
    rows = op.Reshape(moved, op.Concat(op.Constant(value_ints=[-1]), length, axis=0))
    columns = op.Transpose(rows, perm=[1, 0])
    dot = op.MatMulInteger(x, columns, None, op.Constant(value=_MIDDLE_BYTE))
    lead = op.Shape(x, start=0, end=-1)
    parts = op.Reshape(dot, op.Concat(lead, op.Shape(weight, start=0, end=2), axis=0))
    end = op.Constant(value_ints=[2])
    powers = op.Slice(
        op.Constant(value=_POWERS), op.Sub(end, op.Shape(weight, start=0, end=1)), end
    )
    integers = op.ReduceSum(op.Mul(parts, powers), op.Constant(value_ints=[-2]), keepdims=0)
    return integers


@_dialect
def BinaryScores(query: UINT8, key: UINT8, k: int) -> INT32:
    lead = op.Shape(query, start=0, end=-1)
    tokens = op.Shape(key, start=-2, end=-1)
    width = op.Reshape(op.Constant(value_int=k), op.Constant(value_ints=[1]))
    any_count = op.Constant(value_ints=[-1])
    query_rows = op.Concat(any_count, op.Shape(query, start=-2, end=-1), width, axis=0)
    query_bits = op.Reshape(UnpackBits(query, k=k), query_rows)
    key_bits = op.Reshape(UnpackBits(key, k=k), op.Concat(any_count, tokens, width, axis=0))
    one = op.Cast(op.Constant(value_int=1), to=_INT8)
    key_int8 = op.Cast(key_bits, to=_INT8)
    signs = op.Transpose(op.Sub(op.Add(key_int8, key_int8), one), perm=[0, 2, 1])
    column_sums = op.ReduceSum(op.Cast(signs, to=_INT32), op.Constant(value_ints=[1]))
    dot = op.MatMulInteger(query_bits, signs)
    # Not 2 dot - sums: OpenVINO 2026.4 fuses that into the product and gets it wrong.
    integers = op.Sub(dot, op.Sub(column_sums, dot))
    scores = op.Reshape(integers, op.Concat(lead, tokens, axis=0))
    return scores


@_dialect
def MaxSimHamming(query: UINT8, documents: UINT8, k: int) -> INT32:
    width = op.Reshape(op.Constant(value_int=k), op.Constant(value_ints=[1]))
    rows = op.Concat(op.Constant(value_ints=[-1]), width, axis=0)
    query_int8 = op.Cast(op.Reshape(UnpackBits(query, k=k), rows), to=_INT8)
    one = op.Cast(op.Constant(value_int=1), to=_INT8)
    signs = op.Transpose(op.Sub(op.Add(query_int8, query_int8), one), perm=[1, 0])
    column_sums = op.ReduceSum(op.Cast(signs, to=_INT32), op.Constant(value_ints=[0]), keepdims=0)
    # There may be no documents, so no size is left to be -1.
    vectors = op.Mul(op.Shape(documents, start=0, end=1), op.Shape(documents, start=1, end=2))
    octets = op.Mul(op.Shape(documents, start=2, end=3), op.Constant(value_ints=[8]))
    document_rows = op.Concat(vectors, octets, axis=0)
    bits = op.Gather(op.Constant(value=_BITS_OF_BYTE), op.Cast(documents, to=_INT32))
    padded = op.Reshape(bits, document_rows, allowzero=1)
    whole = op.Slice(padded, op.Constant(value_ints=[0]), width, op.Constant(value_ints=[1]))
    dot = op.MatMulInteger(whole, signs)
    products = op.Sub(dot, op.Sub(column_sums, dot))
    lead = op.Shape(query, start=0, end=-1)
    by_document = op.Concat(op.Shape(documents, start=0, end=2), lead, axis=0)
    best = op.ReduceMax(
        op.Reshape(products, by_document, allowzero=1), op.Constant(value_ints=[1]), keepdims=0
    )
    # ONNX Runtime 1.31 drops no axis of a sum over nothing.
    sums = op.ReduceSum(best, op.Constant(value_ints=[-1]))
    texts = op.Shape(query, start=0, end=-2)
    scores = op.Reshape(
        sums, op.Concat(op.Shape(documents, start=0, end=1), texts, axis=0), allowzero=1
    )
    return scores


@_dialect
def SoftmaxMask(p: FLOAT, ratio: float) -> UINT8:
    best = op.ReduceMax(p, op.Constant(value_ints=[-1]))
    least = op.Mul(op.CastLike(op.Constant(value_float=ratio), p), best)
    mask = op.Cast(op.GreaterOrEqual(p, least), to=_UINT8)
    return mask


@_dialect
def RowBestMask(scores: INT32, slack: int) -> UINT8:
    best = op.ReduceMax(scores, op.Constant(value_ints=[-1]))
    half = op.Cast(op.Constant(value_int=slack), to=_INT32)
    mask = op.Cast(op.GreaterOrEqual(scores, op.Sub(best, op.Add(half, half))), to=_UINT8)
    return mask


@_dialect
def BiasedBestMask(scores: INT32, bias: FLOAT, excluded: BOOL, cut: float) -> UINT8:
    biased = op.Add(op.Cast(scores, to=_FLOAT), bias)
    t = op.Where(excluded, op.Constant(value=_NEVER), biased)
    best = op.ReduceMax(t, op.Constant(value_ints=[-1]))
    least = op.Sub(best, op.Constant(value_float=cut))
    mask = op.Cast(op.GreaterOrEqual(t, least), to=_UINT8)
    return mask


@_dialect
def ElasticMask(scores: INT32, terms: INT64, least: INT64) -> UINT8:
    last = op.Constant(value_ints=[-1])
    above = op.Sub(op.ReduceMax(scores, last), scores)
    h = op.Div(above, op.Cast(op.Constant(value_int=2), to=_INT32))
    total = op.ReduceSum(op.Gather(terms, h), last)
    mask = op.Cast(op.Greater(op.Gather(least, h), total), to=_UINT8)
    return mask


@_dialect
def MaskSignMatMul(mask: UINT8, value: UINT8, k: int) -> INT32:
    lead = op.Shape(mask, start=0, end=-1)
    width = op.Shape(value, start=-2, end=-1)
    length = op.Reshape(op.Constant(value_int=k), op.Constant(value_ints=[1]))
    any_count = op.Constant(value_ints=[-1])
    mask_rows = op.Concat(any_count, op.Shape(mask, start=-2, end=-1), length, axis=0)
    mask_bits = op.Reshape(UnpackBits(mask, k=k), mask_rows)
    value_bits = op.Reshape(UnpackBits(value, k=k), op.Concat(any_count, width, length, axis=0))
    one = op.Cast(op.Constant(value_int=1), to=_INT8)
    value_int8 = op.Cast(value_bits, to=_INT8)
    signs = op.Transpose(op.Sub(op.Add(value_int8, value_int8), one), perm=[0, 2, 1])
    products = op.MatMulInteger(mask_bits, signs)
    integers = op.Reshape(products, op.Concat(lead, width, axis=0))
    return integers


@_dialect
def IntegerThreshold(x: INT32, threshold: INT32) -> UINT8:
    bits = op.Cast(op.GreaterOrEqual(x, threshold), to=_UINT8)
    return bits


@_dialect
def SumThreshold(x: INT32, first: FLOAT, second: FLOAT) -> UINT8:
    least = op.Add(first, second)
    bits = op.Cast(op.GreaterOrEqual(op.Cast(x, to=_FLOAT), least), to=_UINT8)
    return bits


# A body stands behind those that it calls, since some readers resolve names in one pass.
_BODIES: tuple[Any, ...] = (
    PackBits,
    UnpackBits,
    Binarize,
    BinaryLinear,
    BinaryLinearThreshold,
    BinaryLinearResidual,
    ByteLinear,
    BinaryScores,
    MaxSimHamming,
    SoftmaxMask,
    RowBestMask,
    BiasedBestMask,
    ElasticMask,
    MaskSignMatMul,
    IntegerThreshold,
    SumThreshold,
)


@functools.cache
def _bodies() -> dict[str, bytes]:
    written = {}
    for script_function in _BODIES:
        body = ir.serde.deserialize_function(script_function.to_function_proto())
        name_body(body)
        proto = ir.serde.serialize_function(body)
        # The annotations read as scalars; an inliner would carry that into the graph.
        del proto.value_info[:]
        del proto.opset_import[:]
        proto.opset_import.append(onnx.helper.make_opsetid("", OPSET))
        proto.opset_import.append(onnx.helper.make_opsetid(DOMAIN, VERSION))
        proto.doc_string = OPS[proto.name].doc
        written[proto.name] = proto.SerializeToString(deterministic=True)
    return written


def function_protos() -> dict[str, onnx.FunctionProto]:
    """Return a fresh FunctionProto of every operator, by operator name; callees before callers.

    onnx-ir writes through to the messages that a graph was read from: what renames a constant of
    one model must not reach the next.
    """
    return {name: onnx.FunctionProto.FromString(data) for name, data in _bodies().items()}


def functions() -> dict[str, ir.Function]:
    """Return fresh onnx_ir functions of every operator, by operator name."""
    return {name: _function(name) for name in _bodies()}


def _function(name: str) -> ir.Function:
    return ir.serde.deserialize_function(onnx.FunctionProto.FromString(_bodies()[name]))


def set_functions(model: ir.Model) -> None:
    """Give a model the bodies of the dialect's operators that it uses, and set its versions.

    Args:
        model: Changed in place: functions, opset imports and IR version.
    """
    wanted = [node.op_type for node in model.graph if node.domain == DOMAIN]
    used: dict[str, ir.Function] = {}
    while wanted:
        name = wanted.pop()
        if name not in used:
            used[name] = body = _function(name)
            wanted += [node.op_type for node in body if node.domain == DOMAIN]
    model.functions.clear()
    for name in _bodies():
        if name in used:
            model.functions[used[name].identifier()] = used[name]
    model.graph.opset_imports.clear()
    model.graph.opset_imports[""] = OPSET
    if used:
        model.graph.opset_imports[DOMAIN] = VERSION
    model.ir_version = IR_VERSION
