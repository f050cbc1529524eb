"""The generated program of every preset for every target is the one that is frozen here.

frozen/PRESET.TARGET.txt holds the plan: its steps, what each kernel with register tiles does, and
where buffers lie. frozen/assembly.json holds a hash of the assembly, for one version of TVM, and
frozen/VERSION/ what that makes of float operators, before they are kernels for any target. Depth
is 1, which has every kernel of the whole network; micro has all its blocks.

    pytest tests/compiler/test_frozen.py --update-frozen

writes them again. A line that changes is a decision, to be explained where it is committed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import onnx_ir as ir
import pytest

from tests.instructions import undeclared
from vitc.compiler.codegen import emit_assembly
from vitc.compiler.pipeline import make_plan
from vitc.compiler.plan import Plan, describe, plan_workspace
from vitc.exporter import export
from vitc.models import PRESETS, build_network
from vitc.models.architectures import twin_preset
from vitc.models.initialise import random_model
from vitc.onnx_files import load_onnx, tap_names
from vitc.targets import TARGETS

FROZEN = Path(__file__).with_name("frozen")
FLOAT_FUNCTIONS = ("micro-swin", "micro-pvt", "micro-nest")
"""Presets with float operators that are kernels of TVM's functions, as their twins have."""
HASHES = FROZEN / "assembly.json"
TVM = version("apache-tvm")


@pytest.fixture(scope="module")
def graph(tmp_path_factory) -> Callable[[str], ir.Model]:
    """The packed graph of a preset, exported once."""
    graphs: dict[str, ir.Model] = {}

    def make(name: str) -> ir.Model:
        if name not in graphs:
            config = PRESETS[name].config
            config = config if name == "micro" else config.replace(depth=1)
            path = tmp_path_factory.mktemp(name) / "m.onnx"
            export(random_model(config, 0), path)
            graphs[name], _ = load_onnx(path)
        return graphs[name]

    return make


def text(plan: Plan) -> str:
    offsets = [f"{name} at {offset}" for name, offset in plan.offsets.items()]
    identities = [f"{symbol}: {identity}" for symbol, identity in plan.identities.items()]
    memory = [*offsets, f"workspace of {plan.workspace} B"]
    return describe(plan) + "\n" + "\n".join(identities) + "\n\n" + "\n".join(memory) + "\n"


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("preset", PRESETS)
def test_plan_and_assembly_are_frozen(graph, preset, target, request):
    model, machine = graph(preset), TARGETS[target]
    plan = make_plan(model, machine, tap_names(model))
    plan_workspace(plan)
    file = FROZEN / f"{preset}.{target}.txt"
    assembly = emit_assembly(plan.kernels, machine)
    digest = hashlib.sha256(assembly.encode()).hexdigest()
    if request.config.getoption("--update-frozen"):
        file.write_text(text(plan), encoding="utf-8")
        update(f"{preset}.{target}", digest)
    assert undeclared(assembly, machine) == set()
    assert text(plan) == file.read_text(encoding="utf-8")
    known = json.loads(HASHES.read_text(encoding="utf-8"))
    assert TVM in known, f"no hashes for TVM {TVM}: see --update-frozen"
    assert digest == known[TVM][f"{preset}.{target}"]


@pytest.mark.parametrize("twin", [False, True], ids=["binary", "twin"])
@pytest.mark.parametrize("preset", FLOAT_FUNCTIONS)
def test_what_tvm_makes_of_float_operators_is_frozen(preset, twin, tmp_path, request):
    config = twin_preset(preset).config if twin else PRESETS[preset].config
    model = build_network(config).eval() if twin else random_model(config, 0)
    export(model, tmp_path / "m.onnx")
    graph, _ = load_onnx(tmp_path / "m.onnx")
    texts: dict[str, str] = {}
    make_plan(graph, TARGETS["arm"], tap_names(graph), dump=texts.__setitem__)
    file = FROZEN / TVM / f"{preset}.{'twin' if twin else 'binary'}.txt"
    if request.config.getoption("--update-frozen"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(texts["float-functions"], encoding="utf-8")
    assert file.exists(), f"no float functions of TVM {TVM}: see --update-frozen"
    assert texts["float-functions"] == file.read_text(encoding="utf-8")


def update(name: str, digest: str) -> None:
    known = json.loads(HASHES.read_text(encoding="utf-8")) if HASHES.exists() else {}
    known.setdefault(TVM, {})[name] = digest
    HASHES.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def test_no_file_is_frozen_for_what_is_gone():
    wanted = {f"{preset}.{target}" for preset in PRESETS for target in TARGETS}
    assert {file.name.removesuffix(".txt") for file in FROZEN.glob("*.txt")} == wanted
    assert all(set(names) == wanted for names in json.loads(HASHES.read_text()).values())
