"""fp32 products with constant weights: one kernel each, which reads its rows where they lie."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from tests.compiler.graphs import onnx_graph
from tests.compiler.programs import compare, load_kernels, with_symbols
from vitc.compiler.pipeline import make_plan
from vitc.compiler.plan import Plan
from vitc.compiler.runs import PADDING, Runs, steps_of
from vitc.targets.table import find

RNG = np.random.default_rng(7)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def whole(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


Nodes = list[tuple[str, list[str], str, dict[str, Any]]]
Case = tuple[list[int], Nodes, dict[str, np.ndarray]]

LINEAR: Nodes = [("MatMul", ["v", "w"], "p", {}), ("Add", ["b", "p"], "y", {})]
CASES: dict[str, Case] = {
    "linear": (
        [1, 13, 71],
        [("MatMul", ["x", "w"], "p", {}), ("Add", ["b", "p"], "y", {})],
        {"w": normal(71, 45), "b": normal(45)},
    ),
    "linear without bias": (
        [1, 13, 71], [("MatMul", ["x", "w"], "y", {})], {"w": normal(1, 71, 45)},
    ),
    "linear and ReLU": (
        [1, 13, 71],
        [
            ("MatMul", ["x", "w"], "p", {}),
            ("Add", ["p", "b"], "s", {}),
            ("Relu", ["s"], "y", {}),
        ],
        {"w": normal(71, 32), "b": normal(32)},
    ),
    "head": ([1, 71], [("Gemm", ["x", "w", "b"], "y", {"transB": 1})],
             {"w": normal(103, 71), "b": normal(103)}),
    "rows of windows": (
        [1, 6, 4, 33],
        [
            ("Reshape", ["x", "cut"], "c", {}),
            ("Transpose", ["c"], "v", {"perm": [0, 1, 3, 2, 4, 5]}),
            *LINEAR,
        ],
        {"cut": whole(1, 3, 2, 2, 2, 33), "w": normal(33, 20), "b": normal(20)},
    ),
    "rows merged two by two": (
        [1, 4, 6, 19],
        [
            ("Reshape", ["x", "cut"], "c", {}),
            ("Transpose", ["c"], "t", {"perm": [0, 1, 3, 4, 2, 5]}),
            ("Reshape", ["t", "join"], "v", {}),
            *LINEAR,
        ],
        {
            "cut": whole(1, 2, 2, 3, 2, 19), "join": whole(1, 6, 76),
            "w": normal(76, 38), "b": normal(38),
        },
    ),
    "convolution": (
        [1, 24, 9, 7],
        [("Conv", ["x", "e"], "h", {}), ("Conv", ["h", "w", "b"], "y", {"pads": [1] * 4})],
        {"e": normal(34, 24, 1, 1), "w": normal(20, 34, 3, 3), "b": normal(20)},
    ),
    "convolution with strides": (
        [1, 3, 11, 9],
        [("Conv", ["x", "e"], "h", {}),
         ("Conv", ["h", "w", "b"], "y", {"pads": [1, 0, 2, 1], "strides": [2, 3]})],
        {"e": normal(5, 3, 1, 1), "w": normal(6, 5, 3, 3), "b": normal(6)},
    ),
    "convolution with dilations and ReLU": (
        [1, 3, 11, 9],
        [("Conv", ["x", "e"], "h", {}),
         ("Conv", ["h", "w"], "c", {"pads": [2] * 4, "dilations": [2, 1]}),
         ("Relu", ["c"], "y", {})],
        {"e": normal(4, 3, 1, 1), "w": normal(6, 4, 3, 2)},
    ),
    "convolution of places that do not meet": (
        [1, 3, 8, 6],
        [("Conv", ["x", "e"], "h", {}), ("Conv", ["h", "w", "b"], "y", {"strides": [2, 3]})],
        {"e": normal(32, 3, 1, 1), "w": normal(40, 32, 2, 3), "b": normal(40)},
    ),
    "convolution of an image": (
        [1, 3, 12, 8],
        [("Conv", ["x", "w", "b"], "y", {"strides": [4, 4], "dilations": [2, 1]})],
        {"w": normal(12, 3, 2, 4), "b": normal(12)},
    ),
    "every third row": (
        [1, 10, 24],
        [("Slice", ["x", "from", "to", "axis", "by"], "v", {}), *LINEAR],
        {
            "from": whole(0), "to": whole(10), "axis": whole(1), "by": whole(3),
            "w": normal(24, 9), "b": normal(9),
        },
    ),
}  # fmt: skip


def graph(case: Case) -> ir.Model:
    shape, nodes, constants = case
    return onnx_graph(shape, nodes, constants)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory) -> tuple[ctypes.CDLL, dict[str, Plan]]:
    """The plans of all cases, and their kernels in one library."""
    plans = {
        name: with_symbols(make_plan(graph(case), find("native"), []), f"case{i}")
        for i, (name, case) in enumerate(CASES.items())
    }
    kernels = [kernel for plan in plans.values() for kernel in plan.kernels]
    return load_kernels(kernels, find("native"), tmp_path_factory.mktemp("products")), plans


@pytest.mark.parametrize("name", CASES)
def test_a_product_is_one_step_that_gives_what_onnx_runtime_gives(name, compiled):
    library, plans = compiled
    shape, nodes, constants = CASES[name]
    steps = [step for step in plans[name].steps if not step.tap.startswith("h")]
    steps = [step for step in steps if "copy_lines" not in step.kernel.symbol]
    products = [w for kind, w, *_ in nodes if kind in ("MatMul", "Gemm", "Conv") and "e" not in w]
    (step,), (reads,) = steps, products
    assert "_vitc_float_linear_" in step.kernel.symbol
    assert step.cost.fp == step.output.layout.rows * constants[reads[1]].size
    x = np.random.default_rng(1).standard_normal(shape[1:]).astype(np.float32)
    compare(graph(CASES[name]), plans[name], x, library, atol=2e-6)


def test_a_convolution_of_an_input_with_padding_copies_it_once_and_reads_by_runs():
    nodes: Nodes = [("Conv", ["x", "w"], "y", {"pads": [1] * 4})]
    model = onnx_graph([1, 3, 8, 8], nodes, {"w": normal(8, 3, 3, 3)})
    copy, product = make_plan(model, find("x86"), []).steps
    assert copy.kernel.symbol == "vitc_copy_lines_0"
    assert product.kernel.symbol == "vitc_float_linear_0"
    assert product.operands[0] is copy.output
    # A corner of each window, and the lines of one.
    assert [operand.data.size for operand in product.operands[1:3]] == [64, 3]


def test_a_tap_between_product_and_bias_keeps_both(tmp_path):
    model = graph(CASES["linear"])
    plan = make_plan(model, find("native"), ["p"])
    assert [step.tap for step in plan.steps] == ["p", "y"]
    compare(model, plan, normal(13, 71), load_kernels(plan.kernels, find("native"), tmp_path),
            taps=["p"], atol=2e-6)  # fmt: skip


def test_rows_that_lie_turned_are_copied_once_and_read_by_runs():
    nodes: Nodes = [("Transpose", ["x"], "v", {"perm": [0, 2, 1]}), *LINEAR]
    model = onnx_graph([1, 71, 13], nodes, {"w": normal(71, 45), "b": normal(45)})
    kinds = [step.kernel.symbol for step in make_plan(model, find("x86"), []).steps]
    assert len(kinds) == 2
    assert kinds[1] == "vitc_float_linear_0"


def test_runs_are_the_longest_that_all_rows_have():
    lying = np.arange(12).reshape(3, 4)
    assert Runs.of(lying).length == 4
    assert Runs.of(lying).distance == 4
    assert Runs.of(lying[:1]).distance == 0
    apart = np.concatenate([lying, lying + 40], axis=1)[[0, 2, 1]]
    runs = Runs.of(apart)
    assert (runs.length, runs.distance, runs.padded) == (4, None, False)
    first, places = runs.corners
    assert first.tolist() == [0, 8, 4]
    assert places.tolist() == [0, 40]
    ended = apart.copy()
    ended[1, 4:] = PADDING
    runs = Runs.of(ended)
    assert (runs.length, runs.padded, runs.corners) == (4, True, None)
    ended[1, 2:4] = PADDING
    assert Runs.of(ended).length == 2
    # A row that begins otherwise than the first has no distance from it.
    assert Runs.of(lying + 1).distance is None


def test_long_runs_are_cut_and_padding_stays_padding():
    runs = Runs(np.array([[0, 600], [PADDING, 40]]), 600).cut(256)
    assert runs.length == 200
    assert runs.places.tolist() == [[0, 200, 400, 600, 800, 1000], [PADDING] * 3 + [40, 240, 440]]
    # Rows of one run are cut by the kernel; a prime length stays whole.
    assert Runs(np.array([[0], [600]]), 600).cut(256).length == 600
    assert Runs(np.array([[0, 600]]), 599).cut(256).length == 599


@pytest.mark.parametrize(("places", "steps"), [
    (np.arange(24).reshape(2, 3, 4), (12, 4, 1)),
    (np.arange(24).reshape(4, 2, 3).transpose(1, 2, 0), (3, 1, 6)),
    (np.arange(3).reshape(1, 3, 1), (0, 1, 0)),
    (np.array([[0, 1], [3, 4], [7, 8]]), None),
    (np.array([[1, 2], [3, 4]]), None),
])  # fmt: skip
def test_steps_are_those_of_places_that_lie_evenly_from_the_first_float_on(places, steps):
    assert steps_of(places) == steps
