"""Phase 2: views become orders of the operators that read through them.

Reshape, Transpose, Slice, Gather by constants and packing move elements and compute nothing, and so
does a Concat of views of one value. An operator after them reads the value before them, in an
order; a tap on a view belongs to that value.

A view that keeps all elements moves on through an operator that maps them one by one: what behind a
convolution works on channels first works on rows x channels instead, shifted tokens of a map beside
those that are not, and bits are made of floats as they lie. Where the view takes some rows and
turns them, bits are made of these rows, and the turn follows. A sum of a view of the residual
stream (windows of it) and a product is written through that view: its value is the stream again,
and what comes after it reads through the view.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from vitc.compiler.graph import (
    VIEW,
    WRITTEN,
    Array,
    Graph,
    Input,
    Op,
    Use,
    Value,
    affine_of_norm,
)
from vitc.compiler.order import Order
from vitc.targets.layouts.views import View, apply_views

__all__ = ["orders"]


Readers = Mapping[Value, Sequence[Op]]


def orders(graph: Graph) -> Graph:
    """Take the views out of a graph."""
    through: dict[Value, Use] = {}
    ops: list[Op] = []
    readers = graph.readers()

    def resolved(read: Input) -> Input:
        return through.get(read.value, read) if isinstance(read, Use) else read

    for op in graph.ops:
        op.inputs = tuple(resolved(read) for read in op.inputs)
        if op.kind == VIEW:
            use = _viewed(op.use(0), op.attributes["views"])
        elif op.is_a("Concat", "") and len({id(_root(read)) for read in op.inputs}) == 1:
            use = _joined(list(op.uses), len(op.output.shape), op.attributes.get("axis", 0))
        else:
            before = op.use(-1) if op.is_a("BinaryLinearResidual") else next(op.uses, None)
            moved = None if before is None else _moved_on(op, before, readers)
            if before is None or moved is None:
                ops.append(op)
                continue
            done, use = moved
            ops.append(done)
        through[op.output] = use
        use.value.taps += [(name, use.views) for name, _ in op.output.taps]
    outputs = {name: through.get(use.value, use) for name, use in graph.outputs.items()}
    return Graph(graph.inputs, outputs, ops)


def _root(read: Input) -> object:
    return read.value if isinstance(read, Use) else read


def _elements(use: Use) -> Array:
    if use.elements is not None:
        return use.elements
    shape = use.value.shape
    return np.arange(np.prod(shape, dtype=np.int64)).reshape(shape)


def _viewed(use: Use, views: tuple[View, ...]) -> Use:
    if not views:
        return use
    return _use(use.value, (*use.views, *views), apply_views(_elements(use), views))


def _use(value: Value, views: tuple[View, ...], elements: Array) -> Use:
    """What is read through views; of those that cancel, nothing is left."""
    use = Use(value, views, elements)
    return Use(value) if elements.shape == value.shape and use.whole else use


def _joined(uses: list[Use], rank: int, axis: int) -> Use:
    elements = np.concatenate(
        [_elements(use) for use in uses], axis - 1 if axis > 0 else axis % (rank + 1) - 1
    )
    value, width, taken = uses[0].value, 1, elements
    rows = Order.of(elements, value.channels)
    if rows is not None and rows.heads == 1 and rows.along == "channels":
        width, taken = value.channels, rows.rows
    views: tuple[View, ...] = (
        ("reshape", (int(np.prod(value.shape)) // width, width)),
        ("take", (0, *(int(i) for i in taken.reshape(-1)))),
        ("reshape", elements.shape),
    )
    return _use(value, views, elements)


_ELEMENTWISE = frozenset(
    {
        "Abs", "Add", "BatchNormalization", "Celu", "Clip", "Div", "Elu", "Erf", "Exp", "Gelu",
        "HardSigmoid", "HardSwish", "LeakyRelu", "Max", "Min", "Mish", "Mul", "Neg", "PRelu", "Pow",
        "QuantizeLinear", "Relu", "Selu", "Sigmoid", "Softsign", "Sqrt", "Sub", "Tanh",
    }
)  # fmt: skip
_OF_NUMBERS = frozenset({"Clip", "Pow", "QuantizeLinear"})
"""Whose constants are single numbers."""


def _moved_on(op: Op, before: Use, readers: Readers) -> tuple[Op, Use] | None:
    """An operator on the values before the views, and what it wrote, seen through them.

    Args:
        op: One that maps elements one by one, all of whose values have the same view, or a sum.
        before: What it reads in a view; of a sum, the residual.
        readers: Of the graph as it was read.
    """
    elements, source = before.elements, before.value.shape
    if elements is None or before.whole or elements.shape != op.output.shape:
        return None
    if not _keeps_all(elements, source):
        turned = op.is_a("Binarize") and _in_columns(op.output, readers)
        return _of_some_rows(op, before) if turned else None
    moved = _on_all(op, before, elements)
    return None if moved is None else (moved, Use(moved.output, before.views, elements))


def _in_columns(bits: Value, readers: Readers) -> bool:
    """Whether all that reads bits reads columns: they lead to sums that are turned back."""
    reading = readers.get(bits, [])
    return bool(reading) and all(
        bool(op.attributes.get("transposed"))
        if op.is_a("BinaryLinearResidual")
        else (op.kind == VIEW or op.is_a("BinaryLinearThreshold"))
        and _in_columns(op.output, readers)
        for op in reading
    )


def _of_some_rows(op: Op, before: Use) -> tuple[Op, Use] | None:
    """Bits of rows that are read turned: bits of the rows, and the turn behind them."""
    order = before.order
    if order is None or order.heads != 1 or order.together != 1 or order.along != "rows":
        return None
    taken, channels = order.rows.reshape(-1), before.value.channels
    rows = taken[:, None] * channels + np.arange(channels)
    picks: tuple[View, ...] = (
        ("reshape", (before.value.rows, channels)),
        ("take", (0, *(int(row) for row in taken))),
    )
    turn: tuple[View, ...] = (
        ("reshape", (order.windows, order.count, channels)),
        ("transpose", (0, 2, 1)),
        ("reshape", op.output.shape),
    )
    turned = apply_views(np.arange(rows.size).reshape(rows.shape), turn)
    output = Value(
        f"{op.output.name}.rows", op.output.kind, rows.shape, shown=((op.output.name, turn),)
    )
    inputs: list[Input] = [Use(before.value, picks, rows)]
    inputs += [_before(op.constant(i), turned, rows.shape) for i in range(1, len(op.inputs))]
    return Op(op.kind, op.domain, tuple(inputs), output, op.attributes, op.layer), Use(
        output, turn, turned
    )


def _on_all(op: Op, before: Use, elements: Array) -> Op | None:
    source = before.value.shape
    shown = ((op.output.name, before.views),) if op.output.shown is None else ()
    output = Value(f"{op.output.name}.rows", op.output.kind, source, shown=shown)
    if op.is_a("BinaryLinearResidual"):
        order = before.order
        if order is None or not _along_channels(before):
            return None
        inputs = (*op.inputs[:-1], Use(before.value))
        attributes = {**op.attributes, WRITTEN: order}
        return Op(op.kind, op.domain, inputs, output, attributes, op.layer)
    return _elementwise(op, elements, output)


def _elementwise(op: Op, elements: Array, output: Value) -> Op | None:
    uses, source = list(op.uses), output.shape
    if op.is_a("Binarize"):
        # Bits are written in orders of rows only.
        order = uses[0].order
        if order is None or order.heads != 1:
            return None
    elif op.domain or op.kind not in _ELEMENTWISE:
        return None
    found = [_beside(use, elements, source) for use in uses]
    reads = [read for read in found if read is not None]
    picked = any(read.elements is not None for read in reads)
    if len(reads) < len(uses) or (picked and _along_channels(Use(uses[0].value, (), elements))):
        return None
    kind, inputs, beside = op.kind, list(op.inputs), iter(reads)
    if kind == "BatchNormalization":
        kind, inputs = "Affine", [uses[0], *affine_of_norm(op, elements.shape)]
    moved: list[Input] = []
    for read in inputs:
        if isinstance(read, Use):
            moved.append(next(beside))
        elif read is None or kind in _OF_NUMBERS:
            moved.append(read)
        else:
            moved.append(_before(read, elements, source))
    return Op(kind, op.domain, tuple(moved), output, op.attributes, op.layer)


def _beside(use: Use, elements: Array, shape: tuple[int, ...]) -> Use | None:
    """What is read beside a value before its views: the other one as it lies, or rows of it.

    Args:
        use: What an operator reads beside the value in its view.
        elements: Those of that view, which keeps all.
        shape: Of the value.
    """
    if use.elements is None or use.elements.shape != elements.shape:
        return None
    places = np.empty(elements.size, np.int64)
    places[elements.reshape(-1)] = use.elements.reshape(-1)
    # Shifted tokens of a map, say: rows of the value are picked there, not elements of the map.
    read = Use(use.value, (), places.reshape(shape))
    if read.order is None or not _along_channels(read):
        return None
    rows = read.order.rows.reshape(-1)
    picks: tuple[View, ...] = (
        ("reshape", (use.value.rows, use.value.channels)),
        ("take", (0, *(int(row) for row in rows))),
        ("reshape", shape),
    )
    return _use(use.value, picks, places.reshape(shape))


def _along_channels(use: Use) -> bool:
    """Whether what is read is rows of the value, each by itself, along their channels."""
    order = use.order
    if order is None:
        return False
    return (order.heads, order.together, order.along) == (1, 1, "channels")


def _keeps_all(elements: Array, shape: tuple[int, ...]) -> bool:
    count = int(np.prod(shape))
    return elements.size == count and bool(
        np.array_equal(np.sort(elements.reshape(-1)), np.arange(count))
    )


def _before(constant: Array, elements: Array, shape: tuple[int, ...]) -> Array:
    """A constant, as it meets the elements of the value before the view."""
    array = constant[0] if constant.ndim == elements.ndim + 1 else constant
    if array.size == 1:
        return array.reshape((1,) * len(shape))
    whole = np.empty(elements.size, array.dtype)
    whole[elements.reshape(-1)] = np.broadcast_to(array, elements.shape).reshape(-1)
    result = whole.reshape(shape)
    for axis in range(len(shape)):
        first = result.take([0], axis)
        if np.array_equal(result, np.broadcast_to(first, result.shape)):
            result = first
    return result
