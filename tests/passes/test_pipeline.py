from __future__ import annotations

import json
import logging

import numpy as np
import onnx
import pytest

from vitc.dialect import DOMAIN
from vitc.dialect.metadata import PASSES_KEY, TAP_KEY
from vitc.errors import VitcError
from vitc.passes import LOWERINGS, PHASES, run_phases
from vitc.passes.merge_shifts import MergeShifts
from vitc.passes.rewrite import Rewrite


def _shifted_twice(graph):
    value = graph.input("x", ("batch", 2))
    for shift in (1, 2):
        value = graph.op("Add", [value, graph.const(np.float32(shift))], ("batch", 2))
    return graph.model(value)


def test_every_pass_runs_after_those_it_names() -> None:
    order = [phase.name for phase in PHASES]
    assert [phase.number for phase in PHASES] == list(range(1, len(PHASES) + 1))
    for phase in PHASES:
        assert phase.name == phase.make.name
        for earlier in phase.make.after:
            assert order.index(earlier) < order.index(phase.name)
    for lowerings in LOWERINGS.values():
        assert all(phase.number == len(PHASES) + 1 for phase in lowerings)


def test_a_pass_before_those_it_names_is_refused_and_the_graph_stays_as_it_was(graph) -> None:
    model = _shifted_twice(graph)
    for phases in (PHASES[1:], (PHASES[1], PHASES[0])):
        with pytest.raises(VitcError, match="batch_norm_threshold has to run after merge_shifts"):
            run_phases(model, phases)
    assert len(model.graph) == 2
    run_phases(model, PHASES[:1])
    run_phases(model, PHASES[1:])


def test_reports_dumps_and_metadata_name_every_phase(graph, tmp_path) -> None:
    model = _shifted_twice(graph)
    reports = run_phases(model, dump=tmp_path / "ir")
    assert [report.name for report in reports] == [phase.name for phase in PHASES]
    assert (reports[0].rewrites, reports[0].nodes_before, reports[0].nodes_after) == (1, 2, 1)
    assert json.loads(model.metadata_props[PASSES_KEY]) == [phase.name for phase in PHASES]
    dumps = sorted((tmp_path / "ir").iterdir())
    assert [path.stem for path in dumps] == [f"{p.number:02d}_{p.name}" for p in PHASES]
    assert len(onnx.load(dumps[0]).graph.node) == 1


def test_a_rewrite_that_declines_says_why(graph, caplog) -> None:
    x = graph.input("x", ("batch", 2))
    model = graph.model(graph.op("Add", [x, x], ("batch", 2)))
    with caplog.at_level(logging.DEBUG, logger="vitc.passes"):
        assert not MergeShifts()(model).modified
    assert "does not have one constant operand" in caplog.text


def test_a_foreign_dialect_version_is_refused(graph) -> None:
    import onnx_ir as ir

    model = _shifted_twice(graph)
    model.graph.opset_imports[DOMAIN] = 2
    with pytest.raises(ir.passes.PreconditionError, match="version 2"):
        MergeShifts()(model)


def test_a_rewrite_that_loses_a_tap_is_caught(graph) -> None:
    import onnx_ir as ir

    class Forgetful(Rewrite):
        name = "forgetful"
        anchors = frozenset({("", "Add")})

        def rewrite(self, node, graph) -> None:  # noqa: ARG002
            node.outputs[0].metadata_props.pop(TAP_KEY)

    x = graph.input("x", ("batch", 2))
    out = graph.op("Add", [x, graph.const(np.float32(1))], ("batch", 2))
    model = graph.model(graph.tap(out, "layer.value"))
    with pytest.raises(ir.passes.PostconditionError, match=r"layer\.value"):
        Forgetful()(model)
