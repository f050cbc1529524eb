"""Small networks of every backbone: plans copy nothing into an order, and every value is exact."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vitc.compiler import compile_model
from vitc.compiler.pipeline import make_plan
from vitc.exporter import export
from vitc.models import PRESETS, random_model
from vitc.models.initialise import random_images
from vitc.onnx_files import load_onnx, run_with_taps, tap_names
from vitc.targets import find

_spec = importlib.util.spec_from_file_location("shared", Path(__file__).with_name("conftest.py"))
shared = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(shared)

MICRO = {
    **{name: entry.config for name, entry in PRESETS.items() if name.startswith("micro")},
    **{
        f"{name} merged in bits": PRESETS[name].config.replace(merge="binary", depth=1)
        for name in ("micro-swin", "micro-pvt", "micro-nest")
    },
    **{
        f"{name} with layer norms and BiT's own masks": replace(
            PRESETS[name].config.replace(norm="layer", depth=1), scheme="bit", elastic=True
        )
        for name in ("micro-pvt", "micro-nest")
    },
}
MOVES = {"micro-pvt": 2}
"""PVT's class token beside patches, as positions are added; and the picture, whose pixels are laid
side by side for windows of few colours (`vitc.compiler.rules.lines`), which is faster."""


@pytest.fixture(scope="module", params=MICRO)
def exported(request, tmp_path_factory) -> tuple[str, Path]:
    model = random_model(MICRO[request.param], 5)
    path = tmp_path_factory.mktemp("exported") / "m.onnx"
    export(model, path)
    return request.param, path


def test_no_float_and_no_bit_is_copied_into_an_order(exported):
    model, _ = load_onnx(exported[1])
    symbols = [s.kernel.symbol for s in make_plan(model, find("x86"), tap_names(model)).steps]
    assert sum("attention" in symbol for symbol in symbols) > 1
    moving = ("gather", "repack", "copy", "transpose", "take", "concat")
    moved = [symbol for symbol in symbols if any(word in symbol for word in moving)]
    assert len(moved) == MOVES.get(exported[0].split()[0], 0), moved


@pytest.mark.parametrize("target", ["native", *shared.EMULATED])
def test_every_tap_agrees_with_onnx_runtime(exported, run, target, tmp_path):
    name, path = exported
    artefact = compile_model(path, target, tmp_path / "artefact")
    images = random_images(MICRO[name], 2, seed=1).numpy()
    logits, taps = run(artefact, images)
    expected = run_with_taps(path, images, [*taps])
    assert any(tap.endswith("attn.context") for tap in taps)
    for tap, value in taps.items():
        wanted = expected[tap].astype(value.dtype)
        if value.dtype == np.uint8:
            assert np.array_equal(value, wanted), tap
        else:
            # Sums of up to some thousand products in another order, of values of a few units.
            np.testing.assert_allclose(value, wanted, rtol=0, atol=1e-4, err_msg=tap)
    assert np.array_equal(logits, taps["logits"])
