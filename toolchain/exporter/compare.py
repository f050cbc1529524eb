"""Comparing the constants and the structure of two exports, node by node and bit by bit.

An input that is run shows a wrong constant only if it matters for that input. The export is
deterministic, so any file can also be compared with a fresh export of the checkpoint it claims to
come from.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from vitc.dialect import DOMAIN
from vitc.dialect.bodies import functions
from vitc.dialect.metadata import LAYER_KEY
from vitc.passes.constants import constant

__all__ = ["Difference", "differing_constants"]


@dataclass(frozen=True)
class Difference:
    """One thing in which a model differs from the reference.

    Attributes:
        layer: Layer, as in the node's metadata (`blocks.0.attn`).
        name: Initializer, attribute or node.
        what: What differs, in words.
    """

    layer: str
    name: str
    what: str


def differing_constants(model: ir.Model, reference: ir.Model) -> tuple[Difference, ...]:
    """Compare a model with an export of its reference in the same scheme.

    Args:
        model: The model in question.
        reference: What it should be (`build(checkpoint, scheme=...)`).

    Returns:
        All differences in the order of the reference's graph: initializers (type, shape, every
        bit), operators, attributes, connections, function bodies. Empty if the models are equal.
    """
    return tuple(_differences(model, reference))


def _differences(model: ir.Model, reference: ir.Model) -> Iterator[Difference]:
    found = {str(value.name): node for node in model.graph for value in node.outputs}
    for wanted in reference.graph:
        layer = wanted.metadata_props.get(LAYER_KEY, "")
        node = found.get(str(wanted.outputs[0].name))
        if node is None:
            yield Difference(layer, str(wanted.name), f"there is no {wanted.op_type} of this name")
            continue
        yield from _node_differences(node, wanted, layer)
    expected = {str(value.name) for node in reference.graph for value in node.outputs}
    for node in model.graph:
        if not expected.intersection(str(value.name) for value in node.outputs):
            layer = node.metadata_props.get(LAYER_KEY, "")
            yield Difference(layer, str(node.name), f"this {node.op_type} is not in the reference")
    for kind in ("inputs", "outputs"):
        own, other = (
            [(str(v.name), str(v.dtype), str(v.shape)) for v in getattr(m.graph, kind)]
            for m in (model, reference)
        )
        if own != other:
            yield Difference("", kind, f"the {kind} are {own}, not {other}")
    yield from _body_differences(model, reference)


def _node_differences(node: ir.Node, wanted: ir.Node, layer: str) -> Iterator[Difference]:
    if (node.domain, node.op_type) != (wanted.domain, wanted.op_type):
        yield Difference(layer, str(wanted.name), f"it is a {node.op_type}, not {wanted.op_type}")
        return
    for name in sorted({*node.attributes, *wanted.attributes}):
        own, other = (_attribute(each, name) for each in (node, wanted))
        if own != other:
            yield Difference(layer, f"{wanted.name}.{name}", "the attribute differs")
    if len(node.inputs) != len(wanted.inputs):
        count = f"it has {len(node.inputs)} inputs, not {len(wanted.inputs)}"
        yield Difference(layer, str(wanted.name), count)
        return
    for value, expected in zip(node.inputs, wanted.inputs, strict=True):
        what = _input_difference(value, expected)
        if what:
            # A wrong connection is a fault of the node that reads, not of the value.
            of_node = expected is None or constant(expected) is None
            name = wanted.name if expected is None or of_node else expected.name
            yield Difference(layer, str(name), what)


def _input_difference(value: ir.Value | None, expected: ir.Value | None) -> str:
    if value is None or expected is None:
        return "" if value is expected else "an optional input is given on one side only"
    own, other = constant(value), constant(expected)
    if own is None or other is None:
        if own is not None or other is not None:
            return "it is constant on one side only"
        if value.name == expected.name:
            return ""
        return f"it reads {value.name} instead of {expected.name}"
    if own.dtype != other.dtype or own.shape != other.shape:
        return f"it is {own.dtype} {list(own.shape)}, not {other.dtype} {list(other.shape)}"
    bits, other_bits = (np.frombuffer(a.tobytes(), dtype=np.uint8) for a in (own, other))
    wrong = (bits != other_bits).reshape(own.size, -1).any(axis=1).sum() if own.size else 0
    return f"{wrong} of {own.size} values differ" if wrong else ""


def _attribute(node: ir.Node, name: str) -> bytes | None:
    attribute = node.attributes.get(name)
    if attribute is None:
        return None
    data: bytes = ir.serde.serialize_attribute(attribute).SerializeToString(deterministic=True)
    return data


def _body_differences(model: ir.Model, reference: ir.Model) -> Iterator[Difference]:
    bodies = functions()
    for key in sorted({*model.functions, *reference.functions}):
        domain, name, _ = key
        body = bodies.get(name) if domain == DOMAIN else None
        own = model.functions.get(key)
        if body is None or own is None or _function(own) != _function(body):
            yield Difference("", f"{domain}.{name}", "its body is not the dialect's")


def _function(function: ir.Function) -> bytes:
    data: bytes = ir.serde.serialize_function(function).SerializeToString(deterministic=True)
    return data
