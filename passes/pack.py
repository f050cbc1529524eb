"""Bits are packed once per value, right before the contractions that need them.

    PackBits(constant)          ->  a packed constant
    PackBits(x), PackBits(x)    ->  one PackBits(x)
    UnpackBits(PackBits(x))     ->  x            PackBits(UnpackBits(p))  ->  p

The packed axis is the contracted one, which is always the last: channels of a linear, tokens of the
values that a mask selects. A value contracted along two axes is packed twice, from two layouts.
"""

from __future__ import annotations

import onnx_ir as ir

from vitc.dialect import DOMAIN, pack_bits
from vitc.dialect.metadata import TAP_KEY
from vitc.passes.constants import add_constant, constant
from vitc.passes.rewrite import NoMatch, Rewrite

__all__ = ["Pack"]

_INVERSE = {"PackBits": "UnpackBits", "UnpackBits": "PackBits"}


class Pack(Rewrite):
    """Fold, share and cancel PackBits and UnpackBits."""

    name = "pack"
    after = ("linear_threshold", "integer_threshold", "residual")
    anchors = frozenset({(DOMAIN, "PackBits"), (DOMAIN, "UnpackBits")})

    def __init__(self) -> None:
        super().__init__()
        self._made: dict[tuple[ir.Value, str, int], ir.Value] = {}

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite every match in `model`, in place."""
        self._made = {}
        return super().call(model)

    def rewrite(self, node: ir.Node, graph: ir.Graph) -> None:
        """Remove `node` if its result is known or exists already."""
        source, packed = node.inputs[0], node.outputs[0]
        if source is None or packed.is_graph_output() or TAP_KEY in packed.metadata_props:
            raise NoMatch("its result is an output or a tap")
        k = node.attributes["k"].as_int()
        known = self._made.get((source, node.op_type, k)) or _inverse(source, node, k)
        bits = constant(source)
        if known is None and node.op_type == "PackBits" and bits is not None:
            if bits.shape[-1] != k:
                raise NoMatch(f"the constant has {bits.shape[-1]} bits, not {k}")
            known = add_constant(graph, pack_bits(bits), "packed")
        if known is None:
            self._made[source, node.op_type, k] = packed
            raise NoMatch("its result exists nowhere else")
        packed.replace_all_uses_with(known)
        graph.remove(node, safe=True)


def _inverse(source: ir.Value, node: ir.Node, k: int) -> ir.Value | None:
    before = source.producer()
    if before is None or (before.domain, before.op_type) != (DOMAIN, _INVERSE[node.op_type]):
        return None
    return before.inputs[0] if before.attributes["k"].as_int() == k else None
