"""Softmax and a share of its maximum are a slack on integer scores.

    p = softmax(scale * s);  p_j >= ratio * max p
      <=>  exp(scale * (s_j - s_max)) >= ratio
      <=>  s_max - s_j <= ln(1 / ratio) / scale

Scores of K-bit vectors all have the parity of K, so s_max - s_j = 2 H and the rule is H <= slack
with slack = floor(ln(1 / ratio) / (2 scale)). With scale = d^-0.5 and ratio 1/4 the quotient is
ln4 * sqrt(d) / 2 (SI-BiViT, attention), never an integer; one next to an integer is refused,
because rounding would decide.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from vitc.dialect import DOMAIN
from vitc.passes.constants import constant
from vitc.passes.rewrite import NoMatch, Rewrite, dimensions, producer, replace, with_constant

__all__ = ["SoftmaxToRowBest", "slack_of"]

# The scale in the graph is fp32, so the quotient is known to some 1e-7.
_UNSURE = 1e-6


def slack_of(scale: float, ratio: float) -> int:
    """Return floor(ln(1 / ratio) / (2 scale)), in Hamming distance.

    Raises:
        NoMatch: The arguments do not describe a mask, or the quotient is within 1e-6 of an integer.
    """
    if not (scale > 0 and math.isfinite(scale)):
        raise NoMatch(f"the scale {scale} of the scores is not positive")
    if not 0 < ratio < 1:
        raise NoMatch(f"the ratio {ratio} is not between 0 and 1")
    quotient = -math.log(ratio) / (2 * scale)
    if abs(quotient - round(quotient)) < _UNSURE:
        raise NoMatch(f"the slack {quotient} is too close to an integer for rounding not to matter")
    return math.floor(quotient)


class SoftmaxToRowBest(Rewrite):
    """Cast, Mul, Softmax, SoftmaxMask of binary scores -> RowBestMask."""

    name = "softmax_to_row_best"
    anchors = frozenset({(DOMAIN, "SoftmaxMask")})

    def rewrite(self, node: ir.Node, graph: ir.Graph) -> None:  # noqa: ARG002
        """Replace the mask of probabilities by a mask of integer scores."""
        softmax = producer(node.inputs[0], "Softmax")
        p = softmax.outputs[0]
        if softmax.attributes.get_int("axis", -1) not in (-1, len(dimensions(p)) - 1):
            raise NoMatch("the softmax is not along the last axis")
        scaled = softmax.inputs[0]
        scaling = None if scaled is None else scaled.producer()
        if scaling is not None and scaling.op_type == "Div" and constant(scaling.inputs[0]) is None:
            producer(scaled, "Div")
            data, by = with_constant(scaling)
            scale = 1 / _scalar(by)
        else:
            scaling = producer(scaled, "Mul")
            data, by = with_constant(scaling)
            scale = _scalar(by)
        cast = producer(data, "Cast")
        scores = cast.inputs[0]
        source = None if scores is None else scores.producer()
        if source is None or (source.domain, source.op_type) != (DOMAIN, "BinaryScores"):
            raise NoMatch("the scores do not come from BinaryScores, so their parity is not known")
        slack = slack_of(scale, node.attributes["ratio"].as_float())
        mask = ir.node("RowBestMask", [scores], {"slack": slack}, domain=DOMAIN)
        replace(node.outputs[0], [mask], [cast, scaling, softmax, node])


def _scalar(value: ir.Value) -> float:
    array = constant(value)
    if array is None or array.size != 1:
        raise NoMatch("the scale of the scores is not one number")
    return float(array.astype(np.float64).reshape(()))
