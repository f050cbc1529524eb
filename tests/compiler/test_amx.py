"""What is particular to x86-amx: its refusals, its threads, and where weights and signs lie."""

from __future__ import annotations

import importlib.util
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.processors import HAS_AMX, HOST, NO_AVX512
from vitc.compiler import compile_model
from vitc.compiler.pipeline import make_plan
from vitc.compiler.plan import Constant, plan_workspace
from vitc.compiler.rules import linear
from vitc.errors import VitcError
from vitc.models import PRESETS
from vitc.onnx_files import load_onnx, run_with_taps, tap_names
from vitc.targets import find
from vitc.targets.kernels.binary_linear import tiles_pay
from vitc.targets.layouts import Signs
from vitc.targets.table import TARGETS, host_features

_spec = importlib.util.spec_from_file_location("shared", Path(__file__).with_name("conftest.py"))
shared = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(shared)

needs_avx512 = pytest.mark.skipif("x86-amx" not in HOST, reason=NO_AVX512)
needs_no_amx = pytest.mark.skipif(HAS_AMX, reason="this processor has AMX")


def start(artefact, tmp_path):
    np.save(tmp_path / "x.npy", shared.images_for(shared.config(), 1))
    command = [artefact.runner, tmp_path / "x.npy", tmp_path / "y.npy"]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)


@needs_no_amx
def test_a_processor_without_amx_is_refused(build, tmp_path):
    # A processor without AMX may lack AVX-512 as well.
    missing = [f for f in TARGETS["x86-amx"].features if f not in host_features()]
    _, path = build(shared.config())
    artefact = compile_model(path, "x86-amx", tmp_path / "out")
    done = start(artefact, tmp_path)
    assert done.returncode == 1
    assert f"lacks the feature that the library was compiled for: {missing[0]}" in done.stderr
    assert not (tmp_path / "y.npy").exists()
    with pytest.raises(VitcError, match=f"missing: {', '.join(sorted(missing))}\\."):
        artefact.load()


@needs_avx512
@needs_no_amx
def test_a_linux_that_withholds_tiles_is_named(build, tmp_path):
    # Compiled without the features, so that the driver comes to ask a Linux that has no AMX.
    target = TARGETS["x86-amx"]
    features = tuple(f for f in target.features if not f.startswith("amx"))
    _, path = build(shared.config())
    artefact = compile_model(path, replace(target, features=features), tmp_path / "out")
    done = start(artefact, tmp_path)
    assert done.returncode == 1
    assert "Linux does not permit this process to use AMX tiles" in done.stderr


@needs_avx512
@pytest.mark.parametrize("threads", ["2", "3"])
def test_threads_change_nothing(compiled, run, threads):
    cfg = shared.config(image_size=32, depth=1, si_hidden=65)
    _, path, artefact = compiled(cfg, "x86-amx")
    images = shared.images_for(cfg, 2)
    one, taps = run(artefact, images)
    many, again = run(artefact, images, "--threads", threads, "--oversubscribe")
    assert np.array_equal(one, many)
    assert all(np.array_equal(taps[name], again[name]) for name in taps)
    assert np.allclose(run_with_taps(path, images, ["logits"])["logits"], one, rtol=0, atol=1e-5)


@needs_avx512
def test_a_contraction_too_long_for_a_panel_is_counted_instead(compiled, run):
    cfg = shared.config(hidden=1600, depth=1)
    _, path, artefact = compiled(cfg, "x86-amx")
    names = {step.tap for step in artefact.manifest.steps}
    assert "blocks.0.mlp.input.signs" in names
    assert "blocks.0.mlp.hidden.signs" not in names
    images = shared.images_for(cfg, 2)
    _, taps = run(artefact, images)
    expected = run_with_taps(path, images, [*taps])
    for name, value in taps.items():
        if value.dtype == np.uint8:
            assert np.array_equal(value, expected[name]), name
        else:
            # Sums of up to 1600 products in another order, of values of a few units.
            np.testing.assert_allclose(value, expected[name], rtol=0, atol=1e-5, err_msg=name)


@needs_avx512
def test_tiles_and_vectors_share_a_network(compiled, run, monkeypatch, tmp_path):
    cfg = shared.config(width=128, hidden=96, depth=1)
    _, path, on_tiles = compiled(cfg, "x86-amx")
    monkeypatch.setattr(linear, "tiles_pay", tiles_pay)
    mixed = compile_model(path, "x86-amx", tmp_path / "mixed")
    units = {step.tap: step.unit for step in mixed.manifest.steps if step.unit}
    assert units["blocks.0.attn.query"] == units["blocks.0.attn.output"] == "int8"
    assert units["blocks.0.mlp.hidden"] == units["blocks.0.mlp.output"] == "popcount"
    images = shared.images_for(cfg, 2)
    (one, taps), (other, again) = run(on_tiles, images), run(mixed, images)
    assert np.array_equal(one, other)
    assert all(np.array_equal(taps[name], again[name]) for name in taps)


def plan_of(build, target: str):
    cfg = PRESETS["deit-small"].config.replace(depth=2, si=True)
    _, path = build(cfg)
    model, _ = load_onnx(path)
    plan = make_plan(model, find(target), tap_names(model))
    plan_workspace(plan)
    return plan


def test_weights_stay_bits_and_signs_fit_the_workspace_of_deit_small(build):
    tiles, popcounts = (plan_of(build, name) for name in ("x86-amx", "x86-avx512"))

    def constants(plan) -> int:
        found = {id(o): o for step in plan.steps for o in step.operands if isinstance(o, Constant)}
        return sum(constant.data.nbytes for constant in found.values())

    # Products by bit slices have a vector behind their last one.
    symbols = [step.kernel.symbol for step in popcounts.steps]
    sliced = sum("slices" in symbol or "joint" in symbol for symbol in symbols)
    assert sum("joint" in symbol for symbol in symbols) == 2
    assert constants(tiles) == constants(popcounts) - 64 * sliced
    signs = [step for step in tiles.steps if isinstance(step.output.layout, Signs)]
    # Inputs of qkv, proj, fc1 and fc2 are expanded once each; of SI, its two weights.
    assert len(signs) == 2 * (4 + 2)
    assert sum(step.output.size for step in signs) > tiles.workspace
    assert tiles.workspace <= 2e6


def test_native_takes_amx_only_where_all_its_features_are(monkeypatch):
    target = TARGETS["x86-amx"]
    for features, wanted in (
        (target.features, "x86-amx"),
        (target.features[:-1], "x86-avx512"),
        ((f for f in target.features if f != "avx512_vpopcntdq"), "x86-avx512bw"),
        ((f for f in target.features if f != "avx512bw"), "x86"),
        (TARGETS["x86"].features, "x86"),
        (TARGETS["x86-64-v2"].features, "x86-64-v2"),
    ):
        monkeypatch.setattr("vitc.targets.table.host_features", lambda f=features: frozenset(f))
        monkeypatch.setattr("platform.machine", lambda: "x86_64")
        assert find("native").name == wanted
