"""Refuses thresholds that a processor which takes denormals for zero would decide otherwise.

`vitc export` leaves none where it can (`vitc.passes.normal_range`). What is left, or stands in a
file that something else wrote, is judged for every integer that a binary linear can give.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from vitc.dialect import DOMAIN
from vitc.dialect.metadata import LAYER_KEY, TAP_KEY
from vitc.errors import VitcError
from vitc.passes.constants import constant
from vitc.passes.normal_range import (
    LinearDecision,
    decides_alike_when_flushed,
    normal_threshold,
    summands_decide_alike_when_flushed,
)
from vitc.targets.table import Target

__all__ = ["refuse_denormal_thresholds"]


def refuse_denormal_thresholds(model: ir.Model, target: Target) -> None:
    """Check that no threshold of `model` depends on numbers below 2^-126.

    Args:
        model: A packed model.
        target: What it is compiled for; it flushes denormals.

    Raises:
        VitcError: If one does; the layer is named.
    """
    layers = list(dict.fromkeys(_layers(model)))
    if layers:
        raise VitcError(
            f"{layers[0]} decides by numbers below 2^-126, which {target.name} takes for zero"
            + (f"; so do {len(layers) - 1} other layers." if layers[1:] else "."),
            "Export the checkpoint again; if that does not help, compile for another target.",
        )


def _layers(model: ir.Model) -> Iterator[str]:
    for node in model.graph:
        if node.domain != DOMAIN:
            continue
        constants = [constant(value) for value in node.inputs]
        alike = True
        if node.op_type == "Binarize" and (threshold := constants[1]) is not None:
            alike = np.array_equal(threshold, normal_threshold(threshold))
        elif node.op_type == "BinaryLinearThreshold":
            scale, offset, upper, lower = (np.asarray(array) for array in constants[2:6])
            bounds = (array.reshape(array.shape[-2:]) for array in (upper, lower))
            decision = LinearDecision(scale, offset, *bounds)
            alike = decides_alike_when_flushed(decision, node.attributes["k"].as_int())
        elif node.op_type == "SumThreshold":
            one, other = (np.asarray(array).reshape(-1) for array in constants[1:3])
            alike = summands_decide_alike_when_flushed(one, other)
        if not alike:
            yield _tap(node) or node.metadata_props.get(LAYER_KEY, str(node.name))


def _tap(node: ir.Node) -> str:
    """The tap that names the result of a node, behind at most a reshape and a transpose."""
    value = node.outputs[0]
    for _ in range(3):
        if TAP_KEY in value.metadata_props:
            return str(value.name)
        uses = list(value.uses())
        if not uses:
            break
        value = uses[0].node.outputs[0]
    return ""
