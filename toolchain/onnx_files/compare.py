"""Comparing two exports: operators, attributes, connections, and every bit of every constant.

An input that is run shows a wrong constant only if it matters for that input. The export is
deterministic, so any file can also be compared with a fresh export of the checkpoint it claims to
come from. What is compared is what the graphs compute, not how they are written down: both are
walked from their outputs and taps backwards, two values at a time. A tool may rename inner values,
move nodes, share or copy constants, hold them in nodes, fold what follows from them, or put
identities in between.

A tap that both graphs have by name is where one walk ends and another starts, so that a fault is
reported once, in its layer, and not by everything behind it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from vitc.dialect import DOMAIN
from vitc.dialect.bodies import functions
from vitc.dialect.metadata import LAYER_KEY, TAP_KEY
from vitc.passes.constants import constant, evaluated

__all__ = ["Comparison", "Difference", "compare_graphs", "differing_constants"]

Array = npt.NDArray[Any]
_GRAPHS = frozenset({ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS})


@dataclass(frozen=True)
class Difference:
    """One thing in which a model differs from the reference.

    Attributes:
        layer: Layer, as in the node's metadata (`blocks.0.attn`).
        name: Initializer, attribute or node, as the reference calls it.
        what: What differs, in words.
    """

    layer: str
    name: str
    what: str


@dataclass(frozen=True, eq=False)
class Comparison:
    """What a comparison found.

    Attributes:
        differences: In the order of the reference's graph; empty if the models are equal.
        taps: Values of the model, by the name under which the reference taps them.
    """

    differences: tuple[Difference, ...]
    taps: dict[str, ir.Value]

    def name_taps(self) -> None:
        """Give the model its taps back, of which a tool may have dropped names or properties."""
        for name, value in self.taps.items():
            if not value.is_graph_output() and not value.is_initializer():
                value.name = name
                value.metadata_props[TAP_KEY] = name


def differing_constants(model: ir.Model, reference: ir.Model) -> tuple[Difference, ...]:
    """Return the differences that `compare_graphs` finds."""
    return compare_graphs(model, reference).differences


def compare_graphs(model: ir.Model, reference: ir.Model) -> Comparison:
    """Compare a model with an export of its reference in the same format.

    Args:
        model: The model in question.
        reference: What it should be (`build(checkpoint, form=...)`).

    Returns:
        All differences, and which value of the model is which tap.
    """
    cuts = _common_taps(model, reference)
    walk = _Walk(
        model.graph.opset_imports, reference.graph.opset_imports, _inputs_of(model, reference), cuts
    )
    for own, wanted in cuts:
        walk.makers(own, wanted)
    for own, wanted in zip(model.graph.outputs, reference.graph.outputs, strict=False):
        walk.values(own, wanted, wanted.producer())
    walk.run()
    differences = [
        *walk.differences(reference.graph),
        *_idle(model, [own for own, _ in cuts]),
        *_end_differences(model, reference),
        *_body_differences(model, reference),
    ]
    matched = {wanted: own for own, wanted in (*walk.seen, *cuts)}
    taps = {
        str(value.name): matched[_resolved(value)]
        for value in _tapped(reference)
        if _resolved(value) in matched
    }
    named = {str(value.name) for node in model.graph for value in node.outputs}
    return Comparison(
        tuple(differences),
        {name: _named(model, name) if name in named else own for name, own in taps.items()},
    )


def _tapped(model: ir.Model) -> list[ir.Value]:
    made = (value for node in model.graph for value in node.outputs)
    return [value for value in made if TAP_KEY in value.metadata_props]


def _named(model: ir.Model, name: str) -> ir.Value:
    return next(v for node in model.graph for v in node.outputs if v.name == name)


def _common_taps(model: ir.Model, reference: ir.Model) -> list[tuple[ir.Value, ir.Value]]:
    made = {str(value.name): value for node in model.graph for value in node.outputs}
    return [
        (_resolved(made[str(value.name)]), _resolved(value))
        for value in _tapped(reference)
        if str(value.name) in made
    ]


def _inputs_of(
    one: ir.Model | ir.Function, other: ir.Model | ir.Function
) -> set[tuple[ir.Value, ir.Value]]:
    graphs = [each.graph if isinstance(each, ir.Model) else each for each in (one, other)]
    return set(zip(graphs[0].inputs, graphs[1].inputs, strict=False))


def _resolved(value: ir.Value) -> ir.Value:
    """The value behind identities."""
    node = value.producer()
    while node is not None and (node.domain, node.op_type) == ("", "Identity"):
        source = node.inputs[0]
        if source is None:
            break
        value, node = source, source.producer()
    return value


class _Walk:
    """Walks two graphs backwards, one pair of values after the other.

    Args:
        imports: Opsets of the model (or function).
        wanted_imports: Those of the reference.
        inputs: Pairs of inputs that stand for each other.
        cuts: Pairs of values at which a walk ends, since another starts there.
        trial: Whether this one is to tell only if two values are the same.
    """

    def __init__(
        self,
        imports: dict[str, int],
        wanted_imports: dict[str, int],
        inputs: set[tuple[ir.Value, ir.Value]],
        cuts: Iterable[tuple[ir.Value, ir.Value]] = (),
        trial: bool = False,
    ) -> None:
        self._imports, self._wanted_imports = imports, wanted_imports
        self._inputs = inputs
        self._cuts = frozenset(cuts)
        self._trial = trial
        self._cut_values = {value for pair in cuts for value in pair}
        self._found: list[tuple[ir.Node | None, Difference]] = []
        self._todo: list[Callable[[], None]] = []
        self.seen: set[tuple[ir.Value, ir.Value]] = set()

    def run(self) -> None:
        """Walk until nothing is left."""
        while self._todo:
            self._todo.pop()()

    def differences(self, graph: ir.Graph | ir.Function) -> list[Difference]:
        """What was found, in the order of the reference's nodes."""
        nodes = ir.traversal.RecursiveGraphIterator(graph)
        place: dict[ir.Node | None, int] = {node: index for index, node in enumerate(nodes)}
        found = sorted(self._found, key=lambda each: place.get(each[0], len(place)))
        return list(dict.fromkeys(difference for _, difference in found))

    def values(self, own: ir.Value | None, wanted: ir.Value | None, reader: ir.Node | None) -> None:
        """Compare what a node reads, or a graph hands out, with what the reference's does."""
        if own is None or wanted is None:
            if own is not wanted:
                self._report(reader, None, "an optional input is given on one side only")
            return
        own, wanted = _resolved(own), _resolved(wanted)
        if (own, wanted) in self.seen:
            return
        if own in self._cut_values or wanted in self._cut_values:
            # Computed twice and shared are the same; any other detour is a wrong connection.
            if (own, wanted) not in self._cuts and not self._are_copies(own, wanted):
                self._report(reader, None, f"it reads {own.name} instead of {wanted.name}")
            return
        self.seen.add((own, wanted))
        array, expected = constant(own), constant(wanted)
        if array is not None and expected is None:
            expected = evaluated(wanted)
        if array is None and expected is None:
            self._todo.append(lambda: self.makers(own, wanted, reader))
        elif array is None or expected is None:
            self._report(reader, None, "it is constant on one side only")
        elif what := _array_difference(array, expected):
            self._report(reader, None if constant(wanted) is None else str(wanted.name), what)

    def makers(self, own: ir.Value, wanted: ir.Value, reader: ir.Node | None = None) -> None:
        """Compare the nodes that make two values."""
        node, other = own.producer(), wanted.producer()
        if node is None or other is None:
            if (own, wanted) not in self._inputs:
                self._report(reader, None, f"it reads {own.name} instead of {wanted.name}")
            return
        kind, expected = self._kind(node, self._imports), self._kind(other, self._wanted_imports)
        if kind != expected:
            same = (node.domain, node.op_type) == (other.domain, other.op_type)
            version = f" of opset {kind[-1]}" if same else ""
            self._report(other, None, f"it is a {node.op_type}{version}, not {other.op_type}")
            return
        if own.index() != wanted.index():
            self._report(reader, None, f"it reads output {own.index()}, not {wanted.index()}")
        for name in sorted({*node.attributes, *other.attributes}):
            self._attributes(node, other, name)
        mine, theirs = _inputs(node), _inputs(other)
        if len(mine) != len(theirs):
            self._report(other, None, f"it has {len(mine)} inputs, not {len(theirs)}")
            return
        for value, needed in zip(mine, theirs, strict=True):
            self.values(value, needed, other)

    def _attributes(self, node: ir.Node, other: ir.Node, name: str) -> None:
        mine, theirs = node.attributes.get(name), other.attributes.get(name)
        if mine is not None and theirs is not None and {mine.type, theirs.type} <= _GRAPHS:
            for graph, expected in zip(_graphs(mine), _graphs(theirs), strict=False):
                self._inputs |= set(zip(graph.inputs, expected.inputs, strict=False))
                if len(graph.outputs) != len(expected.outputs):
                    self._report(other, f"{other.name}.{name}", "the attribute differs")
                for value, needed in zip(graph.outputs, expected.outputs, strict=False):
                    self.values(value, needed, other)
            return
        version = self._wanted_imports.get(other.domain, 1)
        data, needed_data = (
            _default(other, name, version) if each is None else _encoded(each)
            for each in (mine, theirs)
        )
        if data != needed_data:
            self._report(other, f"{other.name}.{name}", "the attribute differs")

    def _are_copies(self, own: ir.Value, wanted: ir.Value) -> bool:
        if self._trial:
            return False
        trial = _Walk(
            self._imports, self._wanted_imports, set(self._inputs), self._cuts, trial=True
        )
        trial.makers(own, wanted)
        trial.run()
        return not trial._found

    def _report(self, node: ir.Node | None, name: str | None, what: str) -> None:
        layer = "" if node is None else node.metadata_props.get(LAYER_KEY, "")
        called = name or ("outputs" if node is None else str(node.name))
        self._found.append((node, Difference(layer, called, what)))

    @staticmethod
    def _kind(node: ir.Node, imports: dict[str, int]) -> tuple[str, str, str, int]:
        version = _since(node.op_type, node.domain, imports.get(node.domain, 1))
        return node.domain, node.op_type, node.overload, version


@functools.cache
def _since(op_type: str, domain: str, version: int) -> int:
    """The opset that introduced this form of an operator."""
    try:
        return int(onnx.defs.get_schema(op_type, version, domain).since_version)
    except onnx.defs.SchemaError:
        return version


def _default(node: ir.Node, name: str, version: int) -> bytes | None:
    """What an attribute is if it is left out, encoded; None if that is nothing."""
    try:
        schema = onnx.defs.get_schema(node.op_type, version, node.domain)
    except onnx.defs.SchemaError:
        return None
    declared = schema.attributes.get(name)
    if declared is None or not declared.default_value.type:
        return None
    data: bytes = declared.default_value.SerializeToString(deterministic=True)
    return data


def _encoded(attribute: ir.Attr) -> bytes:
    if attribute.is_ref():
        return f"attribute {attribute.ref_attr_name} of the function".encode()
    proto = ir.serde.serialize_attribute(attribute)
    proto.ClearField("doc_string")
    if proto.HasField("t"):
        # Of a tensor the values count, not its name or the field they are in.
        proto.t.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(proto.t)))
    data: bytes = proto.SerializeToString(deterministic=True)
    return data


def _graphs(attribute: ir.Attr) -> list[ir.Graph]:
    if attribute.type == ir.AttributeType.GRAPH:
        return [attribute.as_graph()]
    return list(attribute.as_graphs())


def _inputs(node: ir.Node) -> list[ir.Value | None]:
    inputs = list(node.inputs)
    while inputs and inputs[-1] is None:
        inputs.pop()
    return inputs


def _array_difference(own: Array, other: Array) -> str:
    if own.dtype != other.dtype or own.shape != other.shape:
        return f"it is {own.dtype} {list(own.shape)}, not {other.dtype} {list(other.shape)}"
    bits, other_bits = (np.frombuffer(a.tobytes(), dtype=np.uint8) for a in (own, other))
    wrong = (bits != other_bits).reshape(own.size, -1).any(axis=1).sum() if own.size else 0
    return f"{wrong} of {own.size} values differ" if wrong else ""


def _idle(model: ir.Model, taps: Sequence[ir.Value]) -> Iterator[Difference]:
    """Nodes that lead to no output and no tap: nothing of them was compared."""
    waiting = [value.producer() for value in (*model.graph.outputs, *taps)]
    reached: set[ir.Node] = set()
    while waiting:
        node = waiting.pop()
        if node is None or node in reached:
            continue
        reached.add(node)
        waiting += [value.producer() for value in node.inputs if value is not None]
        for attribute in node.attributes.values():
            for graph in _graphs(attribute) if attribute.type in _GRAPHS else []:
                waiting += list(graph)
                waiting += [value.producer() for value in graph.outputs]
    for node in model.graph:
        if node not in reached and constant(node.outputs[0]) is None:
            layer = node.metadata_props.get(LAYER_KEY, "")
            yield Difference(layer, str(node.name), f"this {node.op_type} leads to no output")


def _end_differences(model: ir.Model, reference: ir.Model) -> Iterator[Difference]:
    for kind in ("inputs", "outputs"):
        own, other = (
            [(str(value.name), str(value.dtype), _sizes(value)) for value in getattr(each, kind)]
            for each in (model.graph, reference.graph)
        )
        if own != other:
            yield Difference("", kind, f"the {kind} are {own}, not {other}")


def _sizes(value: ir.Value) -> list[int | str] | None:
    if value.shape is None:
        return None
    return [size if isinstance(size, int) else "any" for size in value.shape]


def _body_differences(model: ir.Model, reference: ir.Model) -> Iterator[Difference]:
    bodies = functions()
    for key in sorted({*model.functions, *reference.functions}):
        domain, name, _ = key
        body = bodies.get(name) if domain == DOMAIN else None
        own = model.functions.get(key)
        what = "there is none" if own is None or body is None else _body_difference(own, body)
        if what:
            yield Difference("", f"{domain}.{name}", f"its body is not the dialect's: {what}")


def _body_difference(own: ir.Function, body: ir.Function) -> str:
    """The first difference between two bodies, in words; empty if there is none."""
    for kind in ("inputs", "outputs", "attributes"):
        mine, theirs = (len(getattr(each, kind)) for each in (own, body))
        if mine != theirs:
            return f"it has {mine} {kind}, not {theirs}"
    if set(own.attributes) != set(body.attributes):
        return "its attributes have other names"
    walk = _Walk(own.opset_imports, body.opset_imports, _inputs_of(own, body))
    for value, wanted in zip(own.outputs, body.outputs, strict=True):
        walk.values(value, wanted, wanted.producer())
    walk.run()
    found = walk.differences(body)
    return f"{found[0].name}: {found[0].what}" if found else ""
