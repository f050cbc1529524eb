"""Convolutions of 3 x 3 windows: which are computed by Winograd's filtering, and what they give."""

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
from vitc.targets.table import find

RNG = np.random.default_rng(11)
Nodes = list[tuple[str, list[str], str, dict[str, Any]]]
Case = tuple[list[int], Nodes, dict[str, np.ndarray]]


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def whole(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def convolution(side: tuple[int, int], channels: int, outputs: int, **attributes: Any) -> Case:
    """A picture of many channels, and its convolution."""
    nodes: Nodes = [("Conv", ["x", "e"], "h", {}), ("Conv", ["h", "w", "b"], "y", attributes)]
    constants = {
        "e": normal(channels, 3, 1, 1), "w": normal(outputs, channels, 3, 3), "b": normal(outputs),
    }  # fmt: skip
    return [1, 3, *side], nodes, constants


PADDED = {"pads": [1] * 4}
FILTERED: dict[str, Case] = {
    "padded": convolution((12, 10), 64, 64, **PADDED),
    "of odd sides": convolution((9, 13), 96, 80, **PADDED),
    "without padding": convolution((12, 13), 64, 192),
    "padded unevenly": convolution((12, 8), 128, 72, pads=[0, 2, 1, 0]),
    "of several parts": convolution((12, 12), 320, 64, **PADDED),
}
FILTERED["with ReLU"] = (
    FILTERED["padded"][0],
    [*FILTERED["padded"][1][:1], ("Conv", ["h", "w", "b"], "c", PADDED), ("Relu", ["c"], "y", {})],
    FILTERED["padded"][2],
)
FILTERED["of blocks of a map"] = (
    [1, 4, 24, 64],
    [
        # [blocks of 2 x 3, places of 2 x 4 in each, channels] -> a picture, as NesT has it.
        ("Reshape", ["x", "split"], "s", {}),
        ("Transpose", ["s"], "t", {"perm": [0, 5, 1, 3, 2, 4]}),
        ("Reshape", ["t", "join"], "m", {}),
        ("Conv", ["m", "w", "b"], "y", PADDED),
    ],
    {
        "split": whole(1, 4, 3, 2, 4, 64), "join": whole(1, 64, 8, 12),
        "w": normal(64, 64, 3, 3), "b": normal(64),
    },
)  # fmt: skip

DIRECT: dict[str, Case] = {
    "strides": convolution((12, 10), 64, 64, strides=[2, 2], **PADDED),
    "dilations": convolution((12, 10), 64, 64, dilations=[2, 2], pads=[2] * 4),
    "few windows for so many weights": convolution((10, 10), 256, 256, **PADDED),
    "channels that no vectors divide": convolution((12, 10), 66, 64, **PADDED),
    "few channels": convolution((12, 10), 8, 64, **PADDED),
    "few outputs": convolution((12, 10), 64, 8, **PADDED),
    "few windows": convolution((7, 7), 64, 64, **PADDED),
}
DIRECT["positions"] = (
    FILTERED["padded"][0],
    [
        *FILTERED["padded"][1][:1],
        ("Conv", ["h", "w", "b"], "c", PADDED),
        ("Add", ["c", "position"], "y", {}),
    ],
    {**FILTERED["padded"][2], "position": normal(1, 64, 12, 10)},
)
DIRECT["places between pixels"] = (
    [1, 3, 9, 8],
    [
        ("Conv", ["x", "e"], "h", {}),
        ("ConvTranspose", ["h", "w"], "y", {"strides": [1, 1], "pads": [1] * 4}),
    ],
    {"e": normal(64, 3, 1, 1), "w": normal(64, 64, 3, 3)},
)


def graph(case: Case) -> ir.Model:
    shape, nodes, constants = case
    return onnx_graph(shape, nodes, constants)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory) -> tuple[ctypes.CDLL, dict[str, Plan]]:
    """The plans of all cases, and their kernels in one library."""
    plans = {
        name: with_symbols(make_plan(graph(case), find("native"), []), f"case{i}")
        for i, (name, case) in enumerate(FILTERED.items())
    }
    kernels = [kernel for plan in plans.values() for kernel in plan.kernels]
    return load_kernels(kernels, find("native"), tmp_path_factory.mktemp("winograd")), plans


@pytest.mark.parametrize("name", FILTERED)
def test_a_filtered_convolution_gives_what_onnx_runtime_gives(name, compiled):
    library, plans = compiled
    shape, _, constants = FILTERED[name]
    *_, weights, step = plans[name].steps
    assert "_vitc_winograd_weights_" in weights.kernel.symbol
    assert "_vitc_winograd_0" in step.kernel.symbol
    assert step.operands[3] is weights.output
    assert step.cost.fp == step.output.layout.rows * constants["w"].size
    # The library holds the 9 weights of a window, no more, but for vectors that outputs fill up.
    (held,) = (operand.data for operand in weights.operands)
    assert held.size * constants["w"].shape[0] <= constants["w"].size * step.output.layout.stride
    x = np.random.default_rng(1).standard_normal(shape[1:]).astype(np.float32)
    compare(graph(FILTERED[name]), plans[name], x, library, atol=3e-6)


@pytest.mark.parametrize("name", DIRECT)
def test_other_convolutions_are_direct(name):
    plan = make_plan(graph(DIRECT[name]), find("x86-avx512"), [])
    symbols = [step.kernel.symbol for step in plan.steps]
    assert not any("winograd" in symbol for symbol in symbols)
    assert any("float_linear" in symbol for symbol in symbols)
