"""What `compile_model` writes, and what it refuses."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from vitc.compiler import compile_model
from vitc.compiler.codegen import emit_assembly
from vitc.compiler.pipeline import make_plan
from vitc.compiler.plan import plan_workspace
from vitc.errors import VitcError
from vitc.models import binary_modules
from vitc.onnx_files import load_onnx, tap_names
from vitc.runtime import Artefact
from vitc.targets import find

_spec = importlib.util.spec_from_file_location("shared", Path(__file__).with_name("conftest.py"))
shared = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(shared)


def test_manifest_names_a_kernel_for_every_binary_layer(compiled):
    model, _, artefact = compiled(shared.config(), "native")
    binary = [step for step in artefact.manifest.steps if step.binary]
    # Each block: qkv is three products, attention one, proj, fc1, fc2, and SI's two.
    modules = binary_modules(model)
    blocks = {name.rpartition(".attn.qkv")[0] for name in modules if name.endswith("qkv")}
    assert len(binary) == len(modules) + 3 * len(blocks)
    assert all(step.kernel.startswith("vitc_") for step in artefact.manifest.steps)


def test_dump_ir_writes_one_file_a_phase(compiled, tmp_path):
    compiled(shared.config(), "native", dump_ir=tmp_path / "ir")
    names = sorted(path.name for path in (tmp_path / "ir").iterdir())
    assert names == [
        "00-read.txt",
        "01-orders.txt",
        "02-fuse.txt",
        "03-gather.txt",
        "04-choose.txt",
        "05-emit.txt",
        "06-relax-planned.txt",
        "07-tir-kernels.txt",
        "08-tir-lowered.txt",
        "09-assembly.s",
        "10-tables.c",
    ]


def test_workspace_is_reused_and_no_two_live_buffers_overlap(build):
    _, path = build(shared.config(depth=4))
    model, _ = load_onnx(path)
    plan = make_plan(model, find("x86"), tap_names(model))
    plan_workspace(plan)
    sizes = {step.output.name: step.output.size for step in plan.steps}
    last_use: dict[str, int] = {}
    for i, step in enumerate(plan.steps):
        for operand in step.operands:
            if getattr(operand, "name", None) in sizes:
                last_use[operand.name] = i
    last_use[plan.outputs[0].buffer.name] = len(plan.steps)
    for i, step in enumerate(plan.steps):
        start = plan.offsets[step.output.name]
        end = start + step.output.size
        assert end <= plan.workspace
        for other in plan.steps[:i]:
            name = other.output.name
            if last_use.get(name, -1) < i:
                continue
            if step.adds_to is other.output and last_use[name] == i:
                assert plan.offsets[name] == start
                continue
            free_before = plan.offsets[name] + sizes[name] <= start
            assert free_before or end <= plan.offsets[name], (name, step.output.name)
    assert plan.workspace < sum(sizes.values()) / 2
    # The stream is one buffer: attention and MLP are added to it where it lies.
    added = [step for step in plan.steps if step.adds_to is not None]
    assert len(added) >= 2 * 4
    assert len({plan.offsets[step.output.name] for step in added}) == 1


def test_no_float_product_is_left_between_binarized_values(build):
    _, path = build(shared.config())
    model, _ = load_onnx(path)
    plan = make_plan(model, find("x86-avx512"), tap_names(model))
    kernels = {
        k.symbol: k
        for k in plan.kernels
        if k.symbol.startswith("vitc_threshold") or k.symbol.startswith("vitc_attention")
    }
    assert len(kernels) >= 5
    for kernel in kernels.values():
        assembly = emit_assembly([kernel], find("x86-avx512"))
        assert "vpopcnt" in assembly
        assert not re.search(r"\bvfn?m(add|sub)\d+", assembly), kernel.symbol


def _mutate(path: Path, out: Path, change) -> Path:
    model = ir.load(path)
    change(model)
    ir.save(model, out)
    return out


def test_an_op_between_binarization_and_product_is_named(build, tmp_path):
    _, path = build(shared.config())

    def insert_not(model):
        value = next(v for n in model.graph for v in n.outputs if v.name == "blocks.0.mlp.hidden")
        pack = next(u.node for u in value.uses() if u.node.op_type == "PackBits")
        inverted = ir.node("BitwiseNot", [value])
        model.graph.insert_before(pack, inverted)
        pack.replace_input_with(0, inverted.outputs[0])

    damaged = _mutate(path, tmp_path / "damaged.onnx", insert_not)
    with pytest.raises(VitcError, match="BitwiseNot"):
        compile_model(damaged, "native", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_unknown_target_lists_the_known_and_writes_nothing(build, tmp_path):
    _, path = build(shared.config())
    with pytest.raises(VitcError, match="rpi4"):
        compile_model(path, "rpi3", tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_failure_half_way_leaves_no_folder(build, tmp_path, monkeypatch):
    _, path = build(shared.config())

    def fail(*_, **__):
        raise VitcError("no space left on device")

    monkeypatch.setattr("vitc.compiler.compile.link_library", fail)
    with pytest.raises(VitcError, match="no space"):
        compile_model(path, "native", tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_an_existing_artefact_is_kept_unless_forced(compiled, build, tmp_path):
    _, path, artefact = compiled(shared.config(), "native")
    before = (artefact.path / "manifest.json").read_bytes()
    with pytest.raises(VitcError, match="--force"):
        compile_model(path, "native", artefact.path)
    assert (artefact.path / "manifest.json").read_bytes() == before
    other = build(shared.config(classes=7))[1]
    notes = artefact.path / "notes.txt"
    notes.write_text("mine")
    with pytest.raises(VitcError, match=r"also holds notes\.txt"):
        compile_model(other, "native", artefact.path, force=True)
    notes.unlink()
    assert compile_model(other, "native", artefact.path, force=True).classes == 7


def test_a_foreign_folder_is_never_replaced(build, tmp_path):
    _, path = build(shared.config())
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "cat.jpg").write_bytes(b"cat")
    with pytest.raises(VitcError, match="not an artefact"):
        compile_model(path, "native", folder, force=True)
    assert (folder / "cat.jpg").exists()


@pytest.mark.parametrize("batch", [0, 65])
def test_batch_sizes_out_of_range_are_refused(build, tmp_path, batch):
    with pytest.raises(VitcError, match="1 to 64"):
        compile_model(build(shared.config())[1], "native", tmp_path / "out", batch=batch)


def test_the_same_file_compiles_to_the_same_bytes(build, tmp_path):
    _, path = build(shared.config())
    first = compile_model(path, "x86", tmp_path / "a")
    second = compile_model(path, "x86", tmp_path / "b")
    assert first.manifest.digests == second.manifest.digests


def test_android_library_needs_no_library(compiled):
    _, _, artefact = compiled(shared.config(), "android-arm64")
    assert b"libc.so.6" not in artefact.library.read_bytes()


def test_manifest_records_where_the_model_came_from(compiled):
    _, path, artefact = compiled(shared.config(), "native")
    _, facts = load_onnx(path)
    manifest = json.loads((artefact.path / "manifest.json").read_text())
    assert manifest["config"] == facts.config
    assert manifest["check"] == "skipped"
    assert manifest["passes"][-1].startswith("choose_kernels")
    assert Artefact.open(artefact.path).manifest.to_dict() == manifest
    assert manifest["entries"][0]["inputs"][0]["shape"] == [3, 12, 12]


def test_a_relative_output_folder_works(build, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    artefact = compile_model(build(shared.config())[1], "native", "out")
    assert (tmp_path / "out" / "manifest.json").is_file()
    assert artefact(np.zeros((1, 3, 12, 12), np.float32)).shape == (1, 5)


def test_a_refused_artefact_leaves_the_old_one(compiled, build):
    _, _, artefact = compiled(shared.config(), "native")
    before = (artefact.path / "manifest.json").read_bytes()

    def refuse(_):
        raise VitcError("it computes something else")

    with pytest.raises(VitcError, match="something else"):
        compile_model(
            build(shared.config(classes=7))[1], "native", artefact.path, force=True, check=refuse
        )
    assert (artefact.path / "manifest.json").read_bytes() == before
    assert [path.name for path in artefact.path.parent.iterdir()] == ["native"]
