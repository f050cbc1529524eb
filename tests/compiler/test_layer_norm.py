"""Layer norms: one step each, which reads its rows in the order of their use."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.compiler.graphs import onnx_graph
from tests.compiler.programs import check_program, compare, load_kernels
from vitc.compiler.pipeline import make_plan
from vitc.targets.table import find

RNG = np.random.default_rng(3)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def whole(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


Nodes = list[tuple[str, list[str], str, dict[str, Any]]]


def merged(channels: int) -> tuple[Nodes, dict[str, np.ndarray]]:
    """Tokens of 4 x 6 places, four of a square side by side, a norm of these and a product."""
    nodes: Nodes = [
        ("Reshape", ["x", "cut"], "c", {}),
        ("Transpose", ["c"], "t", {"perm": [0, 1, 3, 4, 2, 5]}),
        ("Reshape", ["t", "join"], "v", {}),
        ("LayerNormalization", ["v", "g", "h"], "n", {"epsilon": 1e-6}),
        ("MatMul", ["n", "w"], "y", {}),
    ]
    width = 4 * channels
    constants = {
        "cut": whole(1, 2, 2, 3, 2, channels), "join": whole(1, 6, width),
        "g": normal(width), "h": normal(width), "w": normal(width, 2 * channels),
    }  # fmt: skip
    return nodes, constants


@pytest.mark.parametrize("channels", [8, 19])
@pytest.mark.parametrize("taps", [[], ["n"]])
def test_merged_tokens_are_normalised_where_they_lie(channels, taps, tmp_path):
    model = onnx_graph([1, 24, channels], *merged(channels))
    plan = make_plan(model, find("native"), taps)
    symbols = [step.kernel.symbol for step in plan.steps]
    assert symbols == ["vitc_layer_norm_0", "vitc_float_linear_0"]
    library = load_kernels(plan.kernels, find("native"), tmp_path)
    compare(model, plan, 3 + normal(24, channels), library, taps=taps)


def test_channels_that_lie_apart_are_copied_once():
    nodes: Nodes = [
        ("Transpose", ["x"], "v", {"perm": [0, 2, 1]}),
        ("LayerNormalization", ["v", "g"], "y", {}),
    ]
    model = onnx_graph([1, 33, 5], nodes, {"g": normal(33)})
    symbols = [step.kernel.symbol for step in make_plan(model, find("x86"), []).steps]
    assert symbols == ["vitc_transpose_0", "vitc_layer_norm_0"]


def test_a_norm_of_several_axes_is_one_of_rows_as_long_as_all_of_them(tmp_path):
    nodes: Nodes = [("LayerNormalization", ["x", "g", "b"], "y", {"axis": 1})]
    model = onnx_graph([1, 5, 33], nodes, {"g": normal(5, 33), "b": normal(5, 33)})
    plan = check_program(model, 3 + normal(5, 33), find("native"), tmp_path)
    assert [step.kernel.tasks for step in plan.steps if "layer_norm" in step.kernel.symbol] == [1]
