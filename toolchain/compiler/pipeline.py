"""The phases of the compiler's middle, in order: an ONNX graph becomes a plan of kernel calls."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from vitc.compiler import choose as choosing
from vitc.compiler.codegen import Dump
from vitc.compiler.emit import emit
from vitc.compiler.fuse import fuse
from vitc.compiler.gather import gather
from vitc.compiler.graph import Graph
from vitc.compiler.orders import orders
from vitc.compiler.plan import Plan, describe
from vitc.compiler.read import read
from vitc.targets.isa import ISAS, Isa
from vitc.targets.table import Target
from vitc.targets.tiles import Tile

__all__ = ["PHASES", "Middle", "Phase", "make_plan"]


@dataclass
class Middle:
    """What the phases work on.

    Attributes:
        model: The ONNX graph.
        taps: Names of the values that a trace shows.
        isa: Instruction set.
        tiles: Register tiles for some kernels.
        dump: Called with what `--dump-ir` writes.
        graph: The typed graph, after the phase `read`.
        choices: Rule and form of each operator, after the phase `choose`.
        plan: The steps, after the phase `emit`.
    """

    model: ir.Model
    taps: Collection[str]
    isa: Isa
    tiles: Mapping[str, Tile]
    dump: Dump | None = None
    graph: Any = None
    choices: Any = None
    plan: Any = None


@dataclass(frozen=True)
class Phase:
    """One phase.

    Attributes:
        name: Its name, that of its file.
        run: Does it.
        text: Its result, for `--dump-ir`.
    """

    name: str
    run: Callable[[Middle], None]
    text: Callable[[Middle], str]


def _read(middle: Middle) -> None:
    middle.graph = read(middle.model, middle.taps)


def _orders(middle: Middle) -> None:
    middle.graph = orders(middle.graph)


def _fuse(middle: Middle) -> None:
    middle.graph = fuse(middle.graph)


def _gather(middle: Middle) -> None:
    middle.graph = gather(middle.graph)


def _choose(middle: Middle) -> None:
    middle.choices = choosing.choose(middle.graph, middle.isa)


def _emit(middle: Middle) -> None:
    middle.plan = emit(
        middle.graph, middle.choices, middle.isa, middle.tiles, middle.dump
    )


def _graph_text(middle: Middle) -> str:
    graph: Graph = middle.graph
    return graph.describe()


PHASES = (
    Phase("read", _read, _graph_text),
    Phase("orders", _orders, _graph_text),
    Phase("fuse", _fuse, _graph_text),
    Phase("gather", _gather, _graph_text),
    Phase("choose", _choose, lambda middle: choosing.describe(middle.choices)),
    Phase("emit", _emit, lambda middle: describe(middle.plan)),
)


def make_plan(
    model: ir.Model,
    target: Target,
    taps: Collection[str],
    tiles: Mapping[str, Tile] | None = None,
    dump: Dump | None = None,
) -> Plan:
    """Turn a packed ONNX graph into kernel calls.

    Args:
        model: What `vitc export --format packed` writes.
        target: Machine.
        taps: Names of the values that a trace shows.
        tiles: Register tiles for some kernels, by `Plan.identities`; the target's for the others.
        dump: Called with the name of each phase and its text, for `--dump-ir`.

    Returns:
        A plan whose workspace is not laid out yet.

    Raises:
        VitcError: If some operator cannot be compiled; it is named with its layer.
    """
    middle = Middle(model, taps, ISAS[target.isa], tiles or {}, dump)
    for phase in PHASES:
        phase.run(middle)
        if dump is not None:
            dump(phase.name, phase.text(middle))
    plan: Plan = middle.plan
    return plan
