"""Blocks of windows: orders within binary kernels, on every processor that can run here."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from tests.compiler.programs import check_program
from tests.compiler.windows import Block, block, write_block
from tests.processors import HOST, SHAPED, of_shape
from vitc.compiler import compile_model
from vitc.compiler.codegen import emit_object, lower
from vitc.compiler.pipeline import make_plan
from vitc.onnx_files import run_with_taps
from vitc.targets.isa import ISAS
from vitc.targets.table import find

_spec = importlib.util.spec_from_file_location("shared", Path(__file__).with_name("conftest.py"))
shared = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(shared)

BLOCKS = {
    "windows of 2 x 3": Block(),
    "shifted": Block(shift=(1, 1), seed=1),
    "one window": Block(map=(3, 3), window=(3, 3), seed=2),
    "windows of 7 x 7": Block(map=(14, 7), window=(7, 7), shift=(3, 0), width=96, heads=3, seed=3),
    "windows of one token": Block(map=(3, 5), window=(1, 1), seed=4),
    "a bias": Block(bias=True, seed=5),
    "a bias and what is excluded": Block(
        map=(9, 6), window=(3, 3), shift=(1, 1), bias=True, width=128, heads=1, seed=6
    ),
    "a bias over 49 keys": Block(
        map=(14, 14), window=(7, 7), shift=(3, 3), bias=True, width=64, heads=2, si=False, seed=7
    ),
    "heads of 16": Block(map=(10, 4), window=(5, 4), shift=(2, 2), width=48, heads=3, bias=True,
                         scale=3000.0, seed=8),
    "keys of another input": Block(map=(8, 8), window=(8, 8), keys=4, seed=10),
    "keys of another input, and a bias": Block(
        map=(6, 10), window=(6, 10), keys=2, bias=True, width=64, seed=11
    ),
    "SI of 64 tokens": Block(map=(8, 16), window=(8, 8), width=33, heads=1, seed=9),
    "outputs that fill vectors of bit slices side by side": Block(
        map=(14, 7), window=(7, 7), shift=(3, 0), width=192, heads=3, seed=12
    ),
}  # fmt: skip
JOINED = "outputs that fill vectors of bit slices side by side"
TARGETS = [name for name in HOST if not ISAS[find(name).isa].amx]


@pytest.mark.parametrize("target", [*TARGETS, *SHAPED])
@pytest.mark.parametrize("name", BLOCKS)
def test_every_value_is_that_of_onnx_runtime(name, target, tmp_path, monkeypatch):
    machine = of_shape(target, monkeypatch) if target in SHAPED else find(target)
    size = BLOCKS[name]
    model, taps = block(size)
    x = np.random.default_rng(size.seed).standard_normal((size.tokens, size.width))
    check_program(model, x.astype(np.float32), machine, tmp_path, taps=taps)


@pytest.mark.parametrize("name", BLOCKS)
def test_no_float_and_no_bit_is_copied_into_an_order(name):
    model, taps = block(BLOCKS[name])
    plan = make_plan(model, find("x86"), taps)
    if BLOCKS[name].keys:
        symbols = [step.kernel.symbol for step in plan.steps]
        assert not any("gather" in symbol or "repack" in symbol for symbol in symbols)
        return
    kinds = [step.kernel.symbol.removeprefix("vitc_").rstrip("0123456789_") for step in plan.steps]
    attention = ["binarize", "threshold_rows", "threshold_keys", "threshold_columns", "attention"]
    if name == JOINED:
        attention[1:4] = ["joint_threshold"]
    mlp = ["residual", "binarize", "threshold_rows", "residual"]
    spatial = ["binarize_columns", "threshold_columns", "residual"] * BLOCKS[name].si
    assert kinds[:-1] == ["copy_rows"] * (kinds[0] == "copy_rows") + attention + mlp + spatial


@pytest.mark.parametrize(
    "target", ["arm", "armv7", "x86-avx512bw", "x86-avx512", "x86-amx"]
)
def test_code_is_made_for_processors_that_this_one_is_not(target, tmp_path):
    model, taps = block(BLOCKS["a bias and what is excluded"])
    plan = make_plan(model, find(target), taps)
    emit_object(lower(plan.kernels, find(target)), find(target), tmp_path / "k.o")
    assert (tmp_path / "k.o").stat().st_size > 0


@pytest.mark.parametrize("target", shared.EMULATED)
@pytest.mark.parametrize("name", ["a bias and what is excluded", "heads of 16"])
def test_every_value_is_that_of_onnx_runtime_on_arm(name, target, run, tmp_path):
    size = BLOCKS[name]
    taps = write_block(size, tmp_path / "m.onnx")
    artefact = compile_model(tmp_path / "m.onnx", target, tmp_path / "artefact")
    x = np.random.default_rng(size.seed).standard_normal((1, size.tokens, size.width))
    _, found = run(artefact, x.astype(np.float32))
    expected = run_with_taps(tmp_path / "m.onnx", x.astype(np.float32), taps)
    assert set(taps) <= set(found)
    for tap in taps:
        if found[tap].dtype == np.uint8:
            assert np.array_equal(found[tap], expected[tap]), tap
        else:
            np.testing.assert_allclose(found[tap], expected[tap], rtol=0, atol=1e-4, err_msg=tap)
