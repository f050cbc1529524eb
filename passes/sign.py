"""A plain sign: Binarize at zero, as the model writes it."""

from __future__ import annotations

import onnx_ir as ir

from vitc.passes.constants import constant
from vitc.passes.rewrite import NoMatch

__all__ = ["plain_sign"]


def plain_sign(node: ir.Node) -> ir.Value:
    """Return the input of a Binarize that tests x >= 0.

    Raises:
        NoMatch: It has another threshold or a flip.
    """
    x, threshold, flip = node.inputs
    at, flipped = constant(threshold), constant(flip)
    if x is None or at is None or flipped is None:
        raise NoMatch("the threshold is not constant")
    if (at != 0).any() or flipped.any():
        raise NoMatch("it already has a threshold")
    return x
