from __future__ import annotations

import pytest

from vitc.bench.macs import StepMacs, step_macs
from vitc.compiler.pipeline import make_plan
from vitc.compiler.plan import Cost
from vitc.exporter import export
from vitc.models import PRESETS
from vitc.models.architectures import account
from vitc.models.initialise import random_model
from vitc.onnx_files import load_onnx, tap_names
from vitc.runtime.manifest import StepFacts
from vitc.targets import find


@pytest.fixture(scope="module")
def cost(tmp_path_factory):
    """What each step of a network costs, by its tap."""

    def of(config, target: str) -> dict[str, Cost]:
        path = tmp_path_factory.mktemp("macs") / "m.onnx"
        export(random_model(config, 0), path)
        model, _ = load_onnx(path)
        return {s.tap: s.cost for s in make_plan(model, find(target), tap_names(model)).steps}

    return of


@pytest.mark.parametrize("si", [False, True])
def test_the_steps_make_the_macs_of_the_network(cost, si: bool) -> None:
    config = PRESETS["micro"].config.replace(depth=2, si=si)
    steps = cost(config, "x86").values()
    total = account(config)
    assert sum(step.binary for step in steps) == total.binary_macs
    assert sum(step.fp for step in steps) == total.fp_macs


def test_deit_small_makes_its_macs_where_they_belong(cost) -> None:
    steps = cost(PRESETS["deit-small"].config.replace(depth=1), "x86-amx")
    assert steps["embedding"] == Cost(fp=196 * 384 * 768)
    assert steps["blocks.0.attn.input"] == steps["blocks.0.attn.input.signs"] == Cost()
    assert steps["blocks.0.attn.key"] == Cost(binary=197 * 384 * 384, unit="int8")
    assert steps["blocks.0.attn.context"] == Cost(binary=2 * 6 * 197 * 197 * 64, unit="popcount")
    assert steps["blocks.0.si.output"] == Cost(binary=384 * 197 * 197, unit="int8")
    assert steps["logits"] == Cost(fp=1000 * 384)


def test_the_manifest_says_what_steps_make() -> None:
    busy = StepFacts("a", "a", "vitc_a", 4, 6, 7, "popcount", ())
    assert step_macs([busy]) == [StepMacs(6, 7, "popcount")]
