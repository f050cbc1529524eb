"""Phase 2: views become orders of the operators that read through them.

Reshape, Transpose, Slice, Gather by constants and packing move elements and compute nothing, and so
does a Concat of views of one value. An operator after them reads the value before them, in an
order; a tap on a view belongs to that value.
"""

from __future__ import annotations

import numpy as np

from vitc.compiler.graph import VIEW, Array, Graph, Input, Op, Use, Value
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
            ops.append(op)
            continue
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
