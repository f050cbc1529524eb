"""Rule `linear (float)`: integers of a binary product that meet a float operator."""

from __future__ import annotations

import numpy as np
import pytest

from tests.compiler.graphs import onnx_graph
from tests.compiler.programs import check_program
from tests.processors import HOST
from vitc.compiler.pipeline import make_plan
from vitc.dialect.packing import pack_bits
from vitc.targets.table import TARGETS, find

FLOAT = 1


def network(rows: int, k: int, outputs: int, tail: str, seed: int = 0):
    rng = np.random.default_rng(seed)
    signs = rng.standard_normal
    constants = {
        "t": signs((1, rows, 1)).astype(np.float32),
        "f": rng.random((1, rows, 1)) < 0.5,
        "w": pack_bits(rng.integers(0, 2, (outputs, k), dtype=np.uint8)),
        # Gains of both signs, and none.
        "s": (signs(outputs) * (rng.random(outputs) < 0.9)).astype(np.float32),
        "b": signs(outputs).astype(np.float32),
    }
    nodes = [
        ("vitc.Binarize", ["x", "t", "f"], "bits", {}),
        ("vitc.PackBits", ["bits"], "packed", {"k": k}),
        ("vitc.BinaryLinear", ["packed", "w"], "ints", {"k": k}),
        ("Cast", ["ints"], "cast", {"to": FLOAT}),
    ]
    if "scale" in tail:
        nodes.append(("Mul", [nodes[-1][2], "s"], "scaled", {}))
    if "bias" in tail:
        nodes.append(("Add", ["b", nodes[-1][2]], "shifted", {}))
    return onnx_graph([1, rows, k], nodes, constants), rng


@pytest.mark.parametrize("target", HOST)
@pytest.mark.parametrize("tail", ["", "scale", "bias", "scale and bias"])
def test_integers_become_floats_in_one_step(tail, target, tmp_path, request):
    if target == "x86-amx":
        request.getfixturevalue("amx")
    model, rng = network(5, 71, 37, tail)
    x = rng.standard_normal((5, 71)).astype(np.float32)
    plan = check_program(model, x, TARGETS[target], tmp_path)
    assert "linear_float" in plan.steps[-1].kernel.symbol
    assert plan.steps[-1].cost.binary == 5 * 71 * 37


@pytest.mark.parametrize(("rows", "k", "outputs"), [(1, 1, 1), (9, 1056, 33), (8, 32, 32)])
def test_any_size(rows, k, outputs, tmp_path):
    model, rng = network(rows, k, outputs, "scale and bias", seed=rows)
    x = rng.standard_normal((rows, k)).astype(np.float32)
    check_program(model, x, find("native"), tmp_path)


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_has_it(target):
    model, _ = network(5, 71, 37, "scale and bias")
    plan = make_plan(model, TARGETS[target], [])
    assert "linear_float" in plan.steps[-1].kernel.symbol


def test_an_integer_without_scale_is_exact(tmp_path):
    model, rng = network(3, 1000, 40, "")
    x = rng.standard_normal((3, 1000)).astype(np.float32)
    check_program(model, x, find("native"), tmp_path, atol=0)
