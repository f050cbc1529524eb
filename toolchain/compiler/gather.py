"""Phase 4: floats that a kernel of ours cannot read in the order asked for are gathered before.

A `Copy` in front of the operator puts them in that order; TVM fuses it with what made them. Bits
are never gathered: their writers serve the orders that are asked for, or the operator is refused.
"""

from __future__ import annotations

from vitc.compiler.graph import Graph, Op, Use, Value
from vitc.compiler.rules import RULES

__all__ = ["COPY", "gather"]

COPY = "Copy"


def gather(graph: Graph) -> Graph:
    """Put a copy before every operator that reads floats in an order that it does not know."""
    ops: list[Op] = []
    for op in graph.ops:
        rule = RULES.get((op.domain, op.kind))
        inputs = list(op.inputs)
        for i in rule.unread(op) if rule is not None else ():
            use = op.use(i)
            copied = Value(f"{op.output.name}.gathered", "float", use.shape, shown=())
            ops.append(Op(COPY, "", (use,), copied, {}, op.layer))
            inputs[i] = Use(copied)
        op.inputs = tuple(inputs)
        ops.append(op)
    return Graph(graph.inputs, graph.outputs, ops)
