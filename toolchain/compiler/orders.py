"""Phase 2: views become orders of the operators that read through them.

Reshape, Transpose, Slice, Gather by constants and packing move elements and compute nothing, and so
does a Concat of views of one value. An operator after them reads the value before them, in an
order; a tap on a view belongs to that value.

A view that keeps all elements moves on through an operator that maps them one by one: what behind a
convolution works on channels first works on rows x channels instead.
"""

from __future__ import annotations

import numpy as np

from vitc.compiler.graph import VIEW, Array, Graph, Input, Op, Use, Value, affine_of_norm
from vitc.targets.layouts.views import View, apply_views

__all__ = ["orders"]


def orders(graph: Graph) -> Graph:
    """Take the views out of a graph."""
    through: dict[Value, Use] = {}
    ops: list[Op] = []

    def resolved(read: Input) -> Input:
        return through.get(read.value, read) if isinstance(read, Use) else read

    for op in graph.ops:
        op.inputs = tuple(resolved(read) for read in op.inputs)
        if op.kind == VIEW:
            use = _viewed(op.use(0), op.attributes["views"])
        elif op.is_a("Concat", "") and len({id(_root(read)) for read in op.inputs}) == 1:
            use = _joined(list(op.uses), len(op.output.shape), op.attributes.get("axis", 0))
        else:
            moved = _moved_on(op)
            if moved is None:
                ops.append(op)
                continue
            ops.append(moved)
            before = next(op.uses)
            use = Use(moved.output, before.views, before.elements)
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
    return Use(use.value, (*use.views, *views), apply_views(_elements(use), views))


def _joined(uses: list[Use], rank: int, axis: int) -> Use:
    elements = np.concatenate(
        [_elements(use) for use in uses], axis - 1 if axis > 0 else axis % (rank + 1) - 1
    )
    taken = ("take", (0, *(int(i) for i in elements.reshape(-1))))
    flat = ("reshape", (int(np.prod(uses[0].value.shape)),))
    return Use(uses[0].value, (flat, taken, ("reshape", elements.shape)), elements)


_ELEMENTWISE = frozenset(
    {
        "Abs", "Add", "BatchNormalization", "Clip", "Div", "Erf", "Exp", "Gelu", "HardSigmoid",
        "HardSwish", "LeakyRelu", "Max", "Min", "Mul", "Neg", "Pow", "Relu", "Sigmoid", "Sqrt",
        "Sub", "Tanh",
    }
)  # fmt: skip
_OF_NUMBERS = frozenset({"Clip", "Pow"})
"""Whose constants are single numbers."""


def _moved_on(op: Op) -> Op | None:
    """An elementwise operator on the values before the views, if all have the same view."""
    uses = list(op.uses)
    elements = uses[0].elements if uses else None
    if op.domain or op.kind not in _ELEMENTWISE or elements is None or uses[0].whole:
        return None
    source = uses[0].value.shape
    same = all(
        use.elements is not None
        and use.value.shape == source
        and np.array_equal(use.elements, elements)
        for use in uses
    )
    if not same or elements.shape != op.output.shape or not _keeps_all(elements, source):
        return None
    kind, inputs = op.kind, list(op.inputs)
    if kind == "BatchNormalization":
        kind, inputs = "Affine", [uses[0], *affine_of_norm(op, elements.shape)]
    moved: list[Input] = []
    for read in inputs:
        if isinstance(read, Use):
            moved.append(Use(read.value))
        elif read is None or kind in _OF_NUMBERS:
            moved.append(read)
        else:
            moved.append(_before(read, elements, source))
    output = Value(f"{op.output.name}.rows", op.output.kind, source)
    return Op(kind, op.domain, tuple(moved), output, op.attributes, op.layer)


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
