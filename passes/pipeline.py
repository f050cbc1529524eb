"""The rewrites in the order in which they run, and the lowerings to standard operators."""

from __future__ import annotations

import json
import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir

from vitc.dialect.bodies import set_functions
from vitc.dialect.metadata import PASSES_KEY
from vitc.dialect.proto import to_proto
from vitc.errors import VitcError
from vitc.passes.batch_norm_threshold import BatchNormThreshold
from vitc.passes.integer_threshold import IntegerThreshold
from vitc.passes.linear_threshold import LinearThreshold
from vitc.passes.lower_to_float import LowerToFloat
from vitc.passes.lower_to_int8 import LowerToInt8
from vitc.passes.merge_shifts import MergeShifts
from vitc.passes.pack import Pack
from vitc.passes.prelu_threshold import PReluThreshold
from vitc.passes.residual import Residual
from vitc.passes.shift_threshold import ShiftThreshold
from vitc.passes.softmax_to_row_best import SoftmaxToRowBest
from vitc.passes.turned_sign import TurnedSign

__all__ = ["LOWERINGS", "PHASES", "PassReport", "Phase", "run_phases"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Phase:
    """One step of the pipeline.

    Attributes:
        number: Place in the order; dumps are named by it.
        name: Name of the pass.
        make: The pass's class.
    """

    number: int
    name: str
    make: type[ir.passes.InPlacePass]


@dataclass(frozen=True)
class PassReport:
    """What a phase did.

    Attributes:
        name: Name of the pass.
        rewrites: How many patterns it replaced.
        nodes_before: Nodes of the graph before.
        nodes_after: Nodes after.
    """

    name: str
    rewrites: int
    nodes_before: int
    nodes_after: int


PHASES: tuple[Phase, ...] = (
    Phase(1, "merge_shifts", MergeShifts),
    Phase(2, "batch_norm_threshold", BatchNormThreshold),
    Phase(3, "prelu_threshold", PReluThreshold),
    Phase(4, "softmax_to_row_best", SoftmaxToRowBest),
    Phase(5, "linear_threshold", LinearThreshold),
    Phase(6, "integer_threshold", IntegerThreshold),
    Phase(7, "residual", Residual),
    Phase(8, "turned_sign", TurnedSign),
    Phase(9, "shift_threshold", ShiftThreshold),
    Phase(10, "pack", Pack),
)

LOWERINGS: dict[str, tuple[Phase, ...]] = {
    "packed": (),
    "int8": (Phase(11, "lower_to_int8", LowerToInt8),),
    "float": (Phase(11, "lower_to_float", LowerToFloat),),
}


def _check_order(model: ir.Model, phases: tuple[Phase, ...]) -> None:
    done: set[str] = set(json.loads(model.metadata_props.get(PASSES_KEY, "[]")))
    for phase in phases:
        missing = [name for name in getattr(phase.make, "after", ()) if name not in done]
        if missing:
            raise VitcError(
                f"The pass {phase.name} has to run after {', '.join(missing)}.",
                "List passes in the order of passes/pipeline.py.",
            )
        done.add(phase.name)


def run_phases(
    model: ir.Model, phases: tuple[Phase, ...] = PHASES, dump: Path | None = None
) -> tuple[PassReport, ...]:
    """Run `phases` on `model` in place and note their names in its metadata.

    Args:
        model: The graph to rewrite.
        phases: In order.
        dump: Folder that gets the model after each phase as `<number>_<name>.onnx`, or None.

    Returns:
        One report per phase.

    Raises:
        VitcError: A rewrite has to run after one that has not run; the graph is as it was.
    """
    _check_order(model, phases)
    reports = []
    for phase in phases:
        before = len(model.graph)
        rewriting = phase.make()
        rewriting(model)
        done: list[str] = json.loads(model.metadata_props.get(PASSES_KEY, "[]"))
        model.metadata_props[PASSES_KEY] = json.dumps([*done, phase.name])
        count = int(getattr(rewriting, "count", 0))
        reports.append(PassReport(phase.name, count, before, len(model.graph)))
        logger.debug("%s: %s", phase.name, Counter(node.op_type for node in model.graph))
        if dump is not None:
            set_functions(model)
            dump.mkdir(parents=True, exist_ok=True)
            onnx.save(to_proto(model), dump / f"{phase.number:02d}_{phase.name}.onnx")
    if phases:
        set_functions(model)
    return tuple(reports)
