"""Phase 3: operators that one kernel computes become one operator.

- Attention: scores, mask of the row's best (with a bias or without), mask times signs, threshold.
  Masks never leave a tile.
- FloatLinear: an fp32 product with constant weights (linear, convolution), and the biases, class
  tokens and positions that are put to its result, which come to a constant; a ReLU after that; and
  the affine map of one row of a batch norm (spec, section 3), which folds into a classifier after
  it, in float64.
- ByteProduct: integers of a product with bytes that become floats, their scales and biases, and the
  rows and positions that are put to them; unlike those of FloatLinear these are not added up, so
  that each operation rounds as in the file.
- LinearFloat: integers of a binary product that become floats, their scales and biases.

A pattern that does not hold leaves its operators as they are; whatever has no rule is named then.
"""

from __future__ import annotations

import math

import numpy as np

from vitc.compiler.graph import EPSILON, Array, Graph, Input, Op, Use, Value
from vitc.dialect.ops import DOMAIN

__all__ = ["ATTENTION", "BYTE_PRODUCT", "FLOAT_LINEAR", "LINEAR_FLOAT", "fuse"]

ATTENTION, LINEAR_FLOAT, FLOAT_LINEAR = "Attention", "LinearFloat", "FloatLinear"
BYTE_PRODUCT = "ByteProduct"


def fuse(graph: Graph) -> Graph:
    """Put one operator in the place of several, at the last of them."""
    surroundings = _Surroundings(graph)
    made: dict[Op, Op] = {}
    gone: set[Op] = set()
    for op in graph.ops:
        for pattern in (_attention, _linear_float, _byte_product, _classifier, _float_linear):
            found = None if op in gone or op in made else pattern(op, surroundings)
            if found is not None:
                whole, parts = found
                made[parts[-1]] = whole
                gone.update(parts[:-1])
    ops = [made.get(op, op) for op in graph.ops if op not in gone]
    return Graph(graph.inputs, graph.outputs, ops)


Found = tuple[Op, list[Op]]
"""The whole, and its parts in order."""


class _Surroundings:
    """Who writes and who reads a value."""

    def __init__(self, graph: Graph) -> None:
        self.makers = {op.output: op for op in graph.ops}
        self.readers = graph.readers()
        self.outputs = {use.value for use in graph.outputs.values()}
        self.inputs = set(graph.inputs)

    def maker(self, use: object, kind: str, domain: str = DOMAIN) -> Op | None:
        """The operator of a type that writes what is read, if nothing else reads it."""
        if not isinstance(use, Use):
            return None
        op = self.makers.get(use.value)
        return op if op is not None and op.is_a(kind, domain) and self.private(use.value) else None

    def private(self, value: Value) -> bool:
        """Whether one operator alone reads a value."""
        return len(self.readers.get(value, [])) == 1 and value not in self.outputs


_MASKS = ("RowBestMask", "BiasedBestMask", "ElasticMask")


def _attention(last: Op, around: _Surroundings) -> Found | None:
    if not (last.is_a("IntegerThreshold") or last.is_a("SumThreshold")):
        return None
    product = around.maker(last.inputs[0], "MaskSignMatMul")
    best = product and next(
        filter(None, (around.maker(product.inputs[0], kind) for kind in _MASKS)), None
    )
    scores = best and around.maker(best.inputs[0], "BinaryScores")
    if product is None or best is None or scores is None:
        return None
    parts = [scores, best, product, last]
    if not all(part.use(0).elements is None for part in parts[1:]):
        return None
    operands = (scores.use(0), scores.use(1), product.use(1))
    inputs = (*operands, last.constant(1), *best.inputs[1:], *last.inputs[2:])
    attributes = {"mask": best.kind, "summands": len(last.inputs) - 1, **best.attributes}
    return Op(ATTENTION, DOMAIN, inputs, last.output, attributes, last.layer), parts


def _added(before: Op, op: Op, start: Array) -> Array | None:
    """Result on an image of zeros, of an operator that adds constants or puts rows in front."""
    use = next(op.uses)
    if not use.whole or use.value is not before.output:
        return None
    if op.is_a("Add", ""):
        other = next(read for read in op.inputs if read is not use)
        if not isinstance(other, np.ndarray):
            return None
        shape = op.output.shape
        if op.output.shape != use.shape:
            return None
        total: Array = start.reshape(use.shape) + np.broadcast_to(other, (1, *shape))[0]
        return total.reshape(-1, shape[-1])
    heads = _heads(op, len(start)) if len(op.output.shape) == len(start.shape) else None
    return None if heads is None else np.concatenate([*heads, start])


def _heads(op: Op, rows: int) -> list[Array] | None:
    """Constant rows that a Concat puts in front of so many; None if that is not what it does."""
    constants, last = op.inputs[:-1], op.inputs[-1]
    heads = [read for read in constants if isinstance(read, np.ndarray)]
    known = op.is_a("Concat", "") and isinstance(last, Use) and len(heads) == len(constants)
    if not known or op.output.rows != sum(len(head[0]) for head in heads) + rows:
        return None
    return [head[0] for head in heads]


def _linear_float(first: Op, around: _Surroundings) -> Found | None:
    found = _scaled(first, around) if first.is_a("BinaryLinear") else None
    if found is None:
        return None
    scale, bias, parts = found
    last = parts[-1]
    inputs = (first.use(0), first.constant(1), scale, bias)
    return Op(LINEAR_FLOAT, DOMAIN, inputs, last.output, first.attributes, last.layer), parts


def _byte_product(first: Op, around: _Surroundings) -> Found | None:
    found = _scaled(first, around) if first.is_a("ByteLinear") else None
    if found is None:
        return None
    scale, bias, parts = found
    channels = first.output.channels
    shift: Array = np.zeros(channels, np.int32)
    if parts[1].is_a("Sub", ""):
        shift = np.broadcast_to(parts[1].constant(1).reshape(-1), channels).astype(np.int32)
    start: Array = np.zeros((0, channels), np.float32)
    by_row = False
    while not by_row and around.private(parts[-1].output) and not parts[-1].output.taps:
        before, following = parts[-1].output, around.readers[parts[-1].output][0]
        use = next(following.uses)
        if following.output.channels != channels or not use.whole:
            break
        heads = None if len(start) else _heads(following, before.rows)
        by_row = following.is_a("Add", "") and following.output.shape == use.shape
        if heads is not None:
            start = np.concatenate(heads).astype(np.float32)
        elif by_row:
            added = next((r for r in following.inputs if isinstance(r, np.ndarray)), None)
            if added is None:
                by_row = False
                break
            shape = (1, *following.output.shape)
            whole = np.broadcast_to(added, shape).reshape(-1, channels).astype(np.float32)
            front = len(start)
            start = np.concatenate([start + whole[:front], whole[front:]])
        else:
            break
        parts.append(following)
    inputs = (first.use(0), first.constant(1), scale, bias, start, shift)
    last = parts[-1]
    return Op(BYTE_PRODUCT, DOMAIN, inputs, last.output, {"by_row": by_row}, last.layer), parts


def _scaled(first: Op, around: _Surroundings) -> tuple[Array, Array, list[Op]] | None:
    """Scale and bias [channels] of integers that become floats, and the operators of that."""
    scale: Array = np.ones(first.output.channels, np.float32)
    bias: Array = np.zeros(first.output.channels, np.float32)
    parts, names = [first], ["Cast", "Mul", "Add"]
    if first.is_a("ByteLinear"):
        names.insert(0, "Sub")
    while around.private(parts[-1].output):
        # The sums of bytes never leave their kernel, whoever would like to see them.
        if parts[-1].output.taps and not parts[-1].is_a("ByteLinear"):
            break
        following = around.readers[parts[-1].output][0]
        name = following.kind if following.domain == "" else ""
        constants = [read for read in following.inputs if isinstance(read, np.ndarray)]
        same = following.output.channels == first.output.channels
        if name not in names or not next(following.uses).whole or not same:
            break
        if name != "Cast":
            vector = _of_channels(constants, following.output.shape)
            if vector is None or following.output.shape != parts[-1].output.shape:
                break
            scale = vector if name == "Mul" else scale
            bias = vector if name == "Add" else bias
        parts.append(following)
        names = names[names.index(name) + 1 :]
    if not any(part.is_a("Cast", "") for part in parts):
        return None
    return scale, bias, parts


def _float_linear(first: Op, around: _Surroundings) -> Found | None:
    if first.is_a("Conv", "") and first.attributes.get("group", 1) == 1:
        weight = first.constant(1).transpose(0, 2, 3, 1)
    elif first.is_a("Gemm", ""):
        weight = first.constant(1) if first.attributes.get("transB") else first.constant(1).T
    elif first.is_a("MatMul", "") and isinstance(first.inputs[1], np.ndarray):
        weight = first.constant(1).reshape(first.constant(1).shape[-2:]).T
    else:
        return None
    channels = first.output.channels
    bias: Array | None = np.zeros(channels, np.float32)
    if len(first.inputs) > 2 and first.inputs[2] is not None:
        bias = _of_channels([first.constant(2)], first.output.shape)
    if bias is None:
        return None
    start: Array = np.broadcast_to(bias, (first.output.rows, channels)).astype(np.float32)
    parts, relu = [first], False
    while not relu and around.private(parts[-1].output) and not parts[-1].output.taps:
        following = around.readers[parts[-1].output][0]
        if following.output.channels != channels:
            break  # its rows are others, as of one pixel whose channels become rows
        relu = following.is_a("Relu", "") and next(following.uses).whole
        added = start if relu else _added(parts[-1], following, start)
        if added is None:
            break
        start = added
        parts.append(following)
    last, outputs = parts[-1], start[:1]
    alike = start.shape[0] == first.output.rows and np.array_equal(
        start, np.broadcast_to(outputs, start.shape)
    )
    inputs = (first.use(0), weight.astype(np.float32), outputs[0] if alike else start)
    attributes = {**first.attributes, "relu": relu, "places": first.output.shape[:-1]}
    return Op(FLOAT_LINEAR, "", inputs, last.output, attributes, last.layer), parts


def _of_channels(constants: list[Array], shape: tuple[int, ...]) -> Array | None:
    """The one constant, if it is one number a channel or one in all."""
    if len(constants) != 1 or any(size > 1 for size in constants[0].shape[:-1]):
        return None
    vector = constants[0].reshape(-1)
    return np.broadcast_to(vector, shape[-1:]) if vector.size in (1, shape[-1]) else None


def _classifier(last: Op, around: _Surroundings) -> Found | None:
    if last.is_a("Gemm", ""):
        transposed = last.attributes.get("transB")
        weight = last.constant(1) if transposed else last.constant(1).T
        bias = last.inputs[2] if len(last.inputs) > 2 else None
        parts = [last]
    elif last.is_a("MatMul", "") and isinstance(last.inputs[1], np.ndarray):
        weight, bias, parts = last.inputs[1].T, None, [last]
        reader = around.readers.get(last.output, [None])[0]
        if reader is not None and reader.is_a("Add", "") and around.private(last.output):
            bias, parts = reader.inputs[1], [last, reader]
    else:
        return None
    norm = around.maker(last.inputs[0], "BatchNormalization", "")
    order = last.use(0).order
    if norm is None or order is None or order.rows.size != 1 or norm.use(0).elements is not None:
        return None
    if len(parts[-1].output.shape) != 1:  # a row that stays one, which no logits are
        return None
    if norm.use(0).value.shape[0] != norm.use(0).value.rows:
        return None
    row = int(order.rows.reshape(-1)[0])
    gain, shift, mean, variance = (float(norm.constant(i).reshape(-1)[row]) for i in range(1, 5))
    epsilon = float(norm.attributes.get("epsilon", EPSILON))
    factor = gain / float(np.sqrt(variance + epsilon))
    weights = weight.astype(np.float64)
    # Exact sums: the order in which numpy adds depends on the processor.
    offset = (shift - mean * factor) * np.array([math.fsum(row) for row in weights])
    added = np.zeros(len(weights)) if bias is None else np.asarray(bias).astype(np.float64)
    folded = [array.astype(np.float32) for array in (weights * factor, added.reshape(-1) + offset)]
    read = Use(norm.use(0).value, last.use(0).views, last.use(0).elements)
    inputs: tuple[Input, ...] = (read, *folded)
    whole = Op(FLOAT_LINEAR, "", inputs, parts[-1].output, {"relu": False}, parts[-1].layer)
    return whole, [norm, *parts]
