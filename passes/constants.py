"""Constants of a graph: read as arrays, written as initializers.

Rewrites that combine constants do so in float64 and round once. A constant made by one rewrite and
read by a later one therefore keeps its unrounded values beside the rounded tensor.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

__all__ = ["add_constant", "collapsed", "constant", "evaluated", "exact_constant", "hint_of"]

Array = npt.NDArray[Any]
_EXACT = "vitc.exact"
_HINT = "vitc.hint"
_GRAPHS = frozenset({ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS})


def constant(value: ir.Value | None) -> Array | None:
    """Return the array that `value` holds, or None if it is not a constant."""
    if value is None:
        return None
    tensor = ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def exact_constant(value: ir.Value | None) -> npt.NDArray[np.float64] | None:
    """Return the constant `value` in float64, unrounded if a rewrite made it; or None."""
    array = constant(value)
    if value is None or array is None:
        return None
    unrounded: npt.NDArray[np.float64] | None = value.meta.get(_EXACT)
    return array.astype(np.float64) if unrounded is None else unrounded


def evaluated(value: ir.Value | None) -> Array | None:
    """Return what `value` is if it follows from constants alone, or None.

    It is computed here, whatever it takes: not for graphs of strangers.
    """
    known = constant(value)
    if known is not None or value is None:
        return known
    node = value.producer()
    if node is None or node.domain or not node.inputs:
        return None
    if any(attribute.type in _GRAPHS for attribute in node.attributes.values()):
        return None
    from onnx.reference import ReferenceEvaluator

    feed = {}
    for source in node.inputs:
        array = None if source is None else evaluated(source)
        if source is not None and array is None:
            return None
        if source is not None:
            feed[str(source.name)] = array
    results = list(ReferenceEvaluator(ir.serde.serialize_node(node)).run(None, feed))
    result: Array = results[value.index() or 0]
    return result


def add_constant(
    graph: ir.Graph, array: Array, hint: str, exact: npt.NDArray[np.float64] | None = None
) -> ir.Value:
    """Add an initializer.

    Args:
        graph: Where to.
        array: Its values, in the type of the tensor.
        hint: What it is; the name is made unique from it.
        exact: The values before rounding, for later rewrites.

    Returns:
        The initializer's value.
    """
    number = len(graph.initializers)
    while (name := f"{hint}_{number}") in graph.initializers:
        number += 1
    value = ir.val(name, const_value=ir.tensor(np.array(array, order="C"), name=name))
    value.meta[_HINT] = hint
    if exact is not None:
        value.meta[_EXACT] = exact
    graph.register_initializer(value)
    return value


def hint_of(value: ir.Value) -> str | None:
    """Return what a constant made by a rewrite is: `weight`, `upper`, ...; None for others."""
    hint: str | None = value.meta.get(_HINT)
    return hint


def collapsed(array: Array) -> Array:
    """Return `array` with length 1 along every axis on which all its entries are equal."""
    for axis in range(array.ndim):
        first = np.take(array, [0], axis=axis)
        if (array == first).all():
            array = first
    return array
