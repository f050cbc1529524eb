"""A sign between two transposes that undo each other needs neither.

    Transpose(Binarize(Transpose(x), T, flip))  ->  Binarize(x, T', flip')

with T' and flip' turned back. The spatial branch of a network of groups takes signs of the stream
with channels first, since its norm and shifts belong to channels, and then groups their tokens.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from vitc.dialect import DOMAIN
from vitc.passes.constants import add_constant, constant
from vitc.passes.rewrite import NoMatch, Rewrite, producer, replace

__all__ = ["TurnedSign"]


class TurnedSign(Rewrite):
    """Transpose, Binarize, Transpose -> Binarize."""

    name = "turned_sign"
    after = ("batch_norm_threshold",)
    anchors = frozenset({("", "Transpose")})

    def rewrite(self, node: ir.Node, graph: ir.Graph) -> None:
        """Take the transposes away around the sign before `node`."""
        sign = producer(node.inputs[0], "Binarize", DOMAIN)
        turned, *limits = sign.inputs
        before = None if turned is None else turned.producer()
        if before is None or (before.domain, before.op_type) != ("", "Transpose"):
            raise NoMatch("the sign is not of a turned value")
        there, back = (np.asarray(each.attributes["perm"].as_ints()) for each in (before, node))
        if not np.array_equal(there[back], np.arange(len(back))):
            raise NoMatch("the second transpose does not undo the first")
        constants = []
        for limit, hint in zip(limits, ("threshold", "flip"), strict=True):
            array = constant(limit)
            if array is None:
                raise NoMatch("the threshold is not constant")
            padded = array.reshape((1,) * (len(back) - array.ndim) + array.shape)
            constants.append(add_constant(graph, padded.transpose(back), hint))
        binarize = ir.node("Binarize", [before.inputs[0], *constants], domain=DOMAIN)
        replace(node.outputs[0], [binarize], [sign, node])
