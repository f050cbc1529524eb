"""The compiled library against ONNX Runtime and PyTorch, for every target that can run here."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from tests.processors import HOST
from vitc.compiler import compile_model
from vitc.compiler.compile import kernel_identities
from vitc.onnx_files import run_with_taps
from vitc.targets.isa import ISAS
from vitc.targets.table import find
from vitc.targets.tiles import Tile, other_tiles

_spec = importlib.util.spec_from_file_location("shared", Path(__file__).with_name("conftest.py"))
shared = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(shared)

SHAPES = {
    "odd tokens, head width 32": {},
    "no SI": {"si": False, "si_hidden": 0},
    "head width 48": {"width": 96, "heads": 2},
    "head width 64": {"width": 64, "heads": 1, "hidden": 256},
    "nothing is a multiple of anything": {"width": 42, "heads": 3, "hidden": 37, "si_hidden": 10},
    "SI hidden differs from tokens": {"si_hidden": 13},
    "more than one 8-bit run": {"width": 64, "hidden": 1056, "depth": 1},
    "enough rows and outputs for bit slices": {
        "image_size": 32,
        "width": 256,
        "heads": 4,
        "hidden": 512,
        "depth": 1,
        "si_hidden": 40,
    },
    "65 tokens": {"image_size": 32, "depth": 1, "si_hidden": 65},
    "ReCU: scales of both signs and zero": {"scheme": "recu", "width": 44, "heads": 2},
    "BiT: learned scales, thresholds of two vectors": {
        "scheme": "bit",
        "width": 44,
        "heads": 2,
        "depth": 1,
    },
    "elastic masks": {"scheme": "bit", "elastic": True, "width": 99, "heads": 3, "depth": 1},
    "non-square patches of pixels left over": {"image_size": 12, "patch_size": 4, "classes": 130},
}


@pytest.mark.parametrize("target", [*HOST, *shared.EMULATED])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_tap_agrees_with_onnx_runtime(compiled, run, shape, target):
    cfg = shared.config(**SHAPES[shape])
    _, path, artefact = compiled(cfg, target)
    images = shared.images_for(cfg, 3)
    logits, taps = run(artefact, images)
    expected = run_with_taps(path, images, [*taps])
    steps = artefact.manifest.steps
    assert len(taps) == sum(len(written.taps) for step in steps for written in step.writes)
    for name, value in taps.items():
        wanted = expected[name].astype(value.dtype)
        assert value.shape == wanted.shape, name
        if value.dtype == np.uint8:
            assert np.array_equal(value, wanted), name
            assert 0 < wanted.mean() < 1, f"{name} is constant, so the test says nothing"
        else:
            # Sums of up to 1056 products in another order, of values of a few units.
            np.testing.assert_allclose(value, wanted, rtol=0, atol=1e-5, err_msg=name)
    assert np.array_equal(logits, taps["logits"])


PARTS = 2


# Of x86-amx only attention and embedding have register tiles, and those are x86-avx512's.
TILED = [name for name in HOST if name != "x86-amx"]


@pytest.mark.parametrize("target", [*TILED, *shared.EMULATED])
@pytest.mark.parametrize("part", range(PARTS))
def test_every_register_tile_agrees_with_onnx_runtime(build, run, tmp_path, target, part):
    cfg = shared.config(width=96, hidden=192, image_size=20, si_hidden=26, depth=1)
    _, path = build(cfg)
    machine = find(target)
    isa = ISAS[machine.isa]
    tiles = [Tile.of(isa), *other_tiles(isa)]
    kernels = kernel_identities(path, machine).values()
    # Neighbours differ, so that a producer and its consumers never have the same tile.
    shift = part * len(tiles) // PARTS
    chosen = {kernel: tiles[(i + shift) % len(tiles)] for i, kernel in enumerate(kernels)}
    artefact = compile_model(path, target, tmp_path / "artefact", tiles=chosen)
    assert artefact.tiles == chosen
    assert len(set(chosen.values())) >= min(len(tiles), len(chosen)) > PARTS
    images = shared.images_for(cfg, 2)
    _, taps = run(artefact, images)
    for name, wanted in run_with_taps(path, images, [*taps]).items():
        if taps[name].dtype == np.uint8:
            assert np.array_equal(taps[name], wanted.astype(np.uint8)), name
        else:
            np.testing.assert_allclose(taps[name], wanted, rtol=0, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("target", ["native", *shared.EMULATED])
@pytest.mark.parametrize(
    "name",
    [
        "released_tiny.pth.tar",
        "si_tiny.safetensors",
        "ratio4_tiny.safetensors",
        "si_micro.safetensors",
    ],
)
def test_golden_logits_of_the_official_code(golden, golden_onnx, run, tmp_path, name, target):
    artefact = compile_model(golden_onnx(name), target, tmp_path / "artefact")
    stem = name.partition(".")[0]
    expected = load_file(golden / f"{stem}.expected.safetensors")
    logits, _ = run(artefact, expected["input"])
    # 1e-4: the contract of the project; fp32 rounding of the residual stream stays far below.
    np.testing.assert_allclose(logits, expected["logits"], rtol=0, atol=1e-4)
    assert np.array_equal(logits.argmax(1), expected["logits"].argmax(1))


@pytest.mark.parametrize("batch", [2, 64])
def test_a_batch_gives_what_single_images_give(compiled, run, batch):
    cfg = shared.config()
    model, _, artefact = compiled(cfg, "native", batch=batch)
    images = shared.images_for(cfg, 5)
    logits, taps = run(artefact, images)
    with torch.no_grad():
        expected = model(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5)
    assert len(taps["embedding"]) == 5


@pytest.mark.parametrize("threads", [2, 3, 7])
@pytest.mark.parametrize("target", ["native", "arm"])
def test_threads_change_nothing(compiled, run, threads, target):
    cfg = shared.config()
    _, _, artefact = compiled(cfg, target)
    images = shared.images_for(cfg, 4)
    one, _ = run(artefact, images)
    many, _ = run(artefact, images, "--threads", str(threads), "--oversubscribe", "--repeat", "20")
    assert np.array_equal(one, many)
