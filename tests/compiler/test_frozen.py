"""The generated program of every preset for every target is the one that is frozen here.

frozen/PRESET.TARGET.txt holds the plan: its steps, what each kernel with register tiles does, and
where buffers lie. frozen/assembly.json holds a hash of the assembly, for one version of TVM. Depth
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

from vitc.compiler.codegen import emit_assembly
from vitc.compiler.pipeline import make_plan
from vitc.compiler.plan import Plan, describe, plan_workspace
from vitc.exporter import export
from vitc.models import PRESETS
from vitc.models.initialise import random_model
from vitc.onnx_files import load_onnx, tap_names
from vitc.targets import TARGETS

FROZEN = Path(__file__).with_name("frozen")
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
    assert text(plan) == file.read_text(encoding="utf-8")
    known = json.loads(HASHES.read_text(encoding="utf-8"))
    assert TVM in known, f"no hashes for TVM {TVM}: see --update-frozen"
    assert digest == known[TVM][f"{preset}.{target}"]


def update(name: str, digest: str) -> None:
    known = json.loads(HASHES.read_text(encoding="utf-8")) if HASHES.exists() else {}
    known.setdefault(TVM, {})[name] = digest
    HASHES.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def test_no_file_is_frozen_for_what_is_gone():
    wanted = {f"{preset}.{target}" for preset in PRESETS for target in TARGETS}
    assert {file.name.removesuffix(".txt") for file in FROZEN.glob("*.txt")} == wanted
    assert all(set(names) == wanted for names in json.loads(HASHES.read_text()).values())
