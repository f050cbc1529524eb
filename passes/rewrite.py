"""What every rewrite shares: where it looks, how it declines, what it may not break.

A rewrite sees each node of its anchor types. It either replaces a value or raises `NoMatch` with
the reason, which is logged; the graph is then left as it was.
"""

from __future__ import annotations

import abc
import logging
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from vitc.dialect import DOMAIN, VERSION
from vitc.dialect.metadata import MODULE_KEY, TAP_KEY
from vitc.passes.constants import constant

__all__ = [
    "NoMatch",
    "Rewrite",
    "broadcasts_within",
    "dimensions",
    "private",
    "producer",
    "replace",
    "with_constant",
]

logger = logging.getLogger(__name__)

_CONTRACTIONS = frozenset(
    {"BinaryLinear", "BinaryLinearThreshold", "BinaryLinearResidual", "MatMulInteger", "MatMul"}
)


class NoMatch(Exception):  # noqa: N818 - it declines, nothing went wrong
    """A rewrite does not apply to a node, and why."""


class Rewrite(ir.passes.InPlacePass):
    """A rewrite of all nodes of some types.

    Attributes:
        name: Name in reports and dumps.
        after: Rewrites that have to run before this one.
        anchors: (domain, operator) of the nodes looked at; a pattern hangs on its last node.
        count: How many nodes the latest call rewrote.
    """

    name: ClassVar[str]
    after: ClassVar[tuple[str, ...]] = ()
    anchors: ClassVar[frozenset[tuple[str, str]]]

    def __init__(self) -> None:
        self.count = 0
        self._taps: frozenset[str] = frozenset()

    @abc.abstractmethod
    def rewrite(self, node: ir.Node, graph: ir.Graph) -> None:
        """Rewrite the pattern that ends in `node`.

        Raises:
            NoMatch: It is not that pattern.
        """

    def requires(self, model: ir.Model) -> None:
        """Check that the graph is of the dialect version this rewrite knows."""
        version = model.opset_imports.get(DOMAIN, VERSION)
        if version != VERSION:
            raise ir.passes.PreconditionError(
                f"{self.name} knows {DOMAIN} version {VERSION}, found version {version}"
            )
        self._taps = _taps(model)

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite every match in `model`, in place."""
        self.count = 0
        graph = model.graph
        for node in tuple(graph):
            if node.graph is None or (node.domain, node.op_type) not in self.anchors:
                continue
            try:
                self.rewrite(node, graph)
            except NoMatch as reason:
                logger.debug("%s leaves %s alone: %s", self.name, node.name, reason)
            else:
                self.count += 1
        if self.count:
            ir.passes.common.RemoveUnusedNodesPass()(model)
            model.graph.opset_imports.setdefault(DOMAIN, VERSION)
            logger.info("%s: %d rewritten", self.name, self.count)
        return ir.passes.PassResult(model, modified=self.count > 0)

    def ensures(self, model: ir.Model) -> None:
        """Check that every tap is still the name of a value."""
        lost = self._taps - _taps(model)
        if lost:
            raise ir.passes.PostconditionError(f"{self.name} lost the taps {sorted(lost)}")


def _taps(model: ir.Model) -> frozenset[str]:
    return frozenset(
        str(value.name)
        for node in model.graph
        for value in node.outputs
        if TAP_KEY in value.metadata_props
    )


def private(value: ir.Value, uses: int = 1) -> bool:
    """Whether `value` may vanish: used by the pattern only, no tap, no output of the graph."""
    return (
        len(value.uses()) == uses
        and not value.is_graph_output()
        and TAP_KEY not in value.metadata_props
    )


def producer(value: ir.Value | None, op_type: str, domain: str = "", uses: int = 1) -> ir.Node:
    """Return the node that makes `value` and may be fused away with it.

    Args:
        value: A value of the pattern.
        op_type: The operator looked for.
        domain: Its domain.
        uses: How often the pattern itself uses the value.

    Raises:
        NoMatch: It is another operator, or the value is needed elsewhere.
    """
    node = None if value is None else value.producer()
    if value is None or node is None or (node.domain, node.op_type) != (domain, op_type):
        found = "no node" if node is None else node.op_type
        raise NoMatch(f"{op_type} was looked for, {found} found")
    if not private(value, uses):
        raise NoMatch(f"{value.name} is needed elsewhere")
    return node


def with_constant(node: ir.Node) -> tuple[ir.Value, ir.Value]:
    """Return (data, constant) of a node with two inputs of which one is constant.

    Raises:
        NoMatch: None or both are constant.
    """
    left, right = node.inputs
    if left is None or right is None:
        raise NoMatch(f"{node.name} lacks an input")
    if (constant(left) is None) == (constant(right) is None):
        raise NoMatch(f"{node.op_type} {node.name} does not have one constant operand")
    return (left, right) if constant(left) is None else (right, left)


def dimensions(value: ir.Value) -> tuple[int | str | None, ...]:
    """Return the dimensions of `value`, names for the symbolic ones.

    Raises:
        NoMatch: The rank is not known.
    """
    if value.shape is None:
        raise NoMatch(f"the shape of {value.name} is not known")
    return tuple(d if isinstance(d, int) else d.value for d in value.shape)


def replace(old: ir.Value, nodes: Sequence[ir.Node], sources: Sequence[ir.Node]) -> None:
    """Put `nodes` in place of the one that makes `old`.

    Args:
        old: The value replaced; its name, type, shape and tap go to the last node's output.
        nodes: New nodes in order; the last one's first output stands for `old`.
        sources: Replaced nodes whose metadata (layer, module) the new nodes get.
    """
    anchor = old.producer()
    if anchor is None or anchor.graph is None:
        raise NoMatch(f"{old.name} has no producer in this graph")
    inherited = {key: value for each in sources for key, value in each.metadata_props.items()}
    module = inherited.pop(MODULE_KEY, None)
    for node in nodes:
        node.metadata_props.update(inherited)
        if module is not None and node.op_type in _CONTRACTIONS:
            node.metadata_props[MODULE_KEY] = module
    new = nodes[-1].outputs[0]
    anchor.graph.insert_before(anchor, nodes)
    name, old.name = old.name, f"{old.name}.replaced"
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    new.name = name
    new.shape, new.type = old.shape, old.type
    new.metadata_props.update(old.metadata_props)
    _remove_unused(anchor)


def _remove_unused(node: ir.Node) -> None:
    if node.graph is None or any(v.uses() or v.is_graph_output() for v in node.outputs):
        return
    makers = {v.producer() for v in node.inputs if v is not None}
    node.graph.remove(node, safe=True)
    for maker in makers:
        if maker is not None:
            _remove_unused(maker)


def broadcasts_within(inner: tuple[int, ...], outer: tuple[int, ...]) -> bool:
    """Whether adding shapes `inner` and `outer` gives `outer`."""
    try:
        return np.broadcast_shapes(inner, outer) == outer
    except ValueError:
        return False
