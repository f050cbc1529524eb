"""Float operators by way of Relax: every operator of the table against ONNX Runtime."""

from __future__ import annotations

import ctypes
import re
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from tests.compiler.graphs import onnx_graph
from tests.compiler.programs import check_program, compare, load_kernels, with_symbols
from tests.processors import NATIVE
from vitc.compiler.codegen import emit_assembly
from vitc.compiler.pipeline import make_plan
from vitc.compiler.plan import Plan
from vitc.compiler.relax_ops import RELAX_OPS
from vitc.dialect.packing import pack_bits
from vitc.errors import VitcError
from vitc.targets.table import TARGETS, find

Case = tuple[tuple[int, ...], list[tuple[str, list[str], str, dict[str, Any]]], dict[str, Any]]
RNG = np.random.default_rng(5)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def whole(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def one(shape: tuple[int, ...], kind: str, *constants: np.ndarray | None, **attributes) -> Case:
    """A graph of one operator, whose other inputs are constants."""
    named = {f"c{i}": array for i, array in enumerate(constants) if array is not None}
    names = [f"c{i}" if array is not None else "" for i, array in enumerate(constants)]
    return shape, [(kind, ["x", *names], "y", attributes)], named


PICTURE = (6, 7, 5)
ODD = (5, 71)
CASES: dict[str, Case] = {
    "Abs": one(ODD, "Abs"),
    "Add a vector": one(ODD, "Add", normal(71)),
    "Add a column": one(ODD, "Add", normal(1, 5, 1)),
    "AveragePool": one(PICTURE, "AveragePool", kernel_shape=[2, 3], strides=[2, 1]),
    "AveragePool of padding": one(
        PICTURE, "AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1
    ),
    "AveragePool beside padding": one(
        PICTURE, "AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2]
    ),
    "BatchNormalization of tokens": one(
        ODD, "BatchNormalization", normal(5), normal(5), normal(5), normal(5) ** 2
    ),
    "BatchNormalization of a picture": one(
        PICTURE, "BatchNormalization", normal(6), normal(6), normal(6), normal(6) ** 2
    ),
    "Clip": one(ODD, "Clip", np.float32(-0.5), np.float32(0.25)),
    "Celu": one(ODD, "Celu", alpha=0.7),
    "Clip from below": one(ODD, "Clip", np.float32(-0.5)),
    "Conv": one(PICTURE, "Conv", normal(9, 6, 3, 3), normal(9), pads=[1, 1, 1, 1]),
    "Conv of one pixel": one(PICTURE, "Conv", normal(37, 6, 1, 1)),
    "Conv of a picture that is one pixel, and what is not negative of it": (
        (6, 1, 1), [("Conv", ["x", "w"], "c", {}), ("Relu", ["c"], "y", {})],
        {"w": normal(3, 6, 1, 1)},
    ),
    "Conv with strides and dilations": one(
        (3, 11, 9), "Conv", normal(4, 3, 3, 2), strides=[2, 3], dilations=[2, 1], pads=[0, 1, 2, 0]
    ),
    "Conv by depth": one(PICTURE, "Conv", normal(6, 1, 3, 3), normal(6), group=6, pads=[1] * 4),
    "Conv by depth, twice": one(PICTURE, "Conv", normal(12, 1, 3, 3), group=6),
    "Conv by groups": one(PICTURE, "Conv", normal(4, 3, 3, 3), group=2, pads=[1] * 4),
    "Div": one(ODD, "Div", normal(71) + 3),
    "Elu": one(ODD, "Elu", alpha=1.3),
    "Erf": one(ODD, "Erf"),
    "Exp": one(ODD, "Exp"),
    "Gelu": one(ODD, "Gelu"),
    "Gelu by tanh": one(ODD, "Gelu", approximate="tanh"),
    "Gemm": one((71,), "Gemm", normal(71, 37), normal(37)),
    "Gemm, turned": one((71,), "Gemm", normal(37, 71), transB=1),
    "GlobalAveragePool": one(PICTURE, "GlobalAveragePool"),
    "HardSigmoid": one(ODD, "HardSigmoid"),
    "HardSwish": one(ODD, "HardSwish"),
    "LayerNormalization": one(ODD, "LayerNormalization", normal(71), normal(71), epsilon=1e-6),
    "LayerNormalization of one": one((3, 1), "LayerNormalization", normal(1), normal(1)),
    "LayerNormalization of windows": one((2, 3, 33), "LayerNormalization", normal(33)),
    "LeakyRelu": one(ODD, "LeakyRelu", alpha=0.3),
    "MatMul": one(ODD, "MatMul", normal(71, 37)),
    "MatMul of a vector": one((71,), "MatMul", normal(71, 37)),
    "MatMul of windows": one((2, 3, 33), "MatMul", normal(33, 8)),
    "Max": one(ODD, "Max", normal(71)),
    "MaxPool": one(PICTURE, "MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4),
    "Min": one(ODD, "Min", normal(71)),
    "Mish": one(ODD, "Mish"),
    "Mul": one(ODD, "Mul", normal(5, 1)),
    "Neg": one(ODD, "Neg"),
    "PRelu": one(ODD, "PRelu", normal(71)),
    "Pad": one(PICTURE, "Pad", whole(0, 1, 2, 0, 0, 3, 0, 0), np.float32(-0.5)),
    "Pad of rows": one(ODD, "Pad", whole(0, 1, 0, 0, 4, 0)),
    "Pad of channels": one(ODD, "Pad", whole(0, 1, 2, 0, 0, 3)),
    "Pow": one(ODD, "Pow", np.float32(2)),
    "Pow of 5": one(ODD, "Pow", np.float32(5)),
    "ReduceMax": one(ODD, "ReduceMax", whole(-1)),
    "ReduceMean": one(ODD, "ReduceMean", whole(2)),
    "ReduceMean of rows": one(ODD, "ReduceMean", whole(1), keepdims=0),
    "ReduceMin": one(ODD, "ReduceMin", whole(1)),
    "ReduceSum": one((2, 3, 33), "ReduceSum", whole(1, 3)),
    "Relu": one(ODD, "Relu"),
    "Resize": one(
        PICTURE, "Resize", None, None, whole(1, 6, 12, 9), mode="linear",
        coordinate_transformation_mode="half_pixel",
    ),
    "Resize between corners": one(
        PICTURE, "Resize", None, None, whole(1, 6, 3, 11), mode="linear",
        coordinate_transformation_mode="align_corners",
    ),
    "Resize to the nearest": one(
        PICTURE, "Resize", None, np.array([1, 1, 2, 2], np.float32), mode="nearest",
        coordinate_transformation_mode="asymmetric", nearest_mode="floor",
    ),
    "Resize by scales": one(
        PICTURE, "Resize", None, np.array([1, 1, 1.5, 1.7], np.float32), mode="linear",
        coordinate_transformation_mode="pytorch_half_pixel",
    ),
    "Resize to the nearer, upward": one(
        PICTURE, "Resize", None, None, whole(1, 6, 14, 5), mode="nearest",
        coordinate_transformation_mode="half_pixel", nearest_mode="round_prefer_ceil",
    ),
    "Selu": one(ODD, "Selu"),
    "Sigmoid": one(ODD, "Sigmoid"),
    "Softmax": one(ODD, "Softmax", axis=-1),
    "Softmax of 197": one((3, 197), "Softmax", axis=-1),
    "Softmax along rows": one(ODD, "Softmax", axis=1),
    "Softmax of few": one((3, 5), "Softmax", axis=-1),
    "Softmax of what is turned": (
        ODD, [("Transpose", ["x"], "t", {"perm": [0, 2, 1]}), ("Softmax", ["t"], "y", {})], {},
    ),
    "Softmax within": (
        ODD, [("Relu", ["x"], "r", {}), ("Softmax", ["r"], "s", {}), ("Neg", ["s"], "y", {})], {},
    ),
    "Softsign": one(ODD, "Softsign"),
    "Sqrt of a square": (ODD, [("Mul", ["x", "x"], "z", {}), ("Sqrt", ["z"], "y", {})], {}),
    "Sub": one(ODD, "Sub", normal(71)),
    "Sub from": (ODD, [("Sub", ["c", "x"], "y", {})], {"c": normal(71)}),
    "Tanh": one(ODD, "Tanh"),
    "Concat": (ODD, [("Relu", ["x"], "r", {}), ("Concat", ["x", "r"], "y", {"axis": 2})], {}),
    "Concat of parts": (
        (4, 6), [("Relu", ["x"], "r", {}), ("Concat", ["r", "c", "x"], "y", {"axis": -1})],
        {"c": normal(1, 4, 33)},
    ),
    "Concat of rows": (
        ODD, [("Relu", ["x"], "r", {}), ("Concat", ["r", "x", "c"], "y", {"axis": 1})],
        {"c": normal(1, 2, 71)},
    ),
    "Gelu written out": (
        ODD,
        [
            ("Div", ["x", "root"], "d", {}),
            ("Erf", ["d"], "e", {}),
            ("Add", ["e", "one"], "s", {}),
            ("Mul", ["x", "s"], "m", {}),
            ("Mul", ["m", "half"], "y", {}),
        ],
        {"root": np.float32(2**0.5), "one": np.float32(1), "half": np.float32(0.5)},
    ),
    "attention": (
        (6, 66),
        [
            ("Reshape", ["x", "shape"], "r", {}),
            ("Transpose", ["r"], "t", {"perm": [0, 2, 1, 3]}),
            ("Transpose", ["r"], "k", {"perm": [0, 2, 3, 1]}),
            ("MatMul", ["t", "k"], "s", {}),
            ("Mul", ["s", "scale"], "scaled", {}),
            ("Softmax", ["scaled"], "p", {"axis": -1}),
            ("MatMul", ["p", "t"], "o", {}),
            ("Transpose", ["o"], "b", {"perm": [0, 2, 1, 3]}),
            ("Reshape", ["b", "back"], "y", {}),
        ],
        {"shape": whole(1, 6, 2, 33), "back": whole(1, 6, 66), "scale": np.float32(0.17)},
    ),
    "a stem": (
        (3, 12, 12),
        [
            ("Conv", ["x", "w"], "c", {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
            ("BatchNormalization", ["c", "g", "b", "m", "v"], "n", {}),
            ("Relu", ["n"], "r", {}),
            ("MaxPool", ["r"], "p", {"kernel_shape": [2, 2], "strides": [2, 2]}),
            ("Reshape", ["p", "shape"], "f", {}),
            ("Transpose", ["f"], "t", {"perm": [0, 2, 1]}),
            ("LayerNormalization", ["t", "g", "b"], "y", {"axis": -1}),
        ],
        {
            "w": normal(10, 3, 3, 3), "g": normal(10), "b": normal(10), "m": normal(10),
            "v": normal(10) ** 2, "shape": whole(1, 10, 9),
        },
    ),
}  # fmt: skip


def graph(case: Case) -> ir.Model:
    shape, nodes, constants = case
    return onnx_graph([1, *shape], nodes, {k: np.asarray(v) for k, v in constants.items()})


@pytest.fixture(scope="module")
def operators(tmp_path_factory) -> tuple[ctypes.CDLL, dict[str, Plan]]:
    """The plans of all cases, and their kernels in one library: linking takes seconds."""
    plans = {
        name: with_symbols(make_plan(graph(case), find(NATIVE), []), f"case{i}")
        for i, (name, case) in enumerate(CASES.items())
    }
    kernels = [kernel for plan in plans.values() for kernel in plan.kernels]
    folder = tmp_path_factory.mktemp("operators")
    return load_kernels(kernels, find(NATIVE), folder), plans


@pytest.mark.parametrize("name", CASES)
def test_an_operator_gives_what_onnx_runtime_gives(name, operators):
    library, plans = operators
    x = 2 * np.random.default_rng(1).standard_normal(CASES[name][0]).astype(np.float32)
    compare(graph(CASES[name]), plans[name], x, library, atol=2e-6)


def test_every_row_of_the_table_has_a_case():
    kinds = {kind for _, nodes, _ in CASES.values() for kind, *_ in nodes}
    # What phases make: of a BatchNormalization of a picture, and before readers of ours.
    assert set(RELAX_OPS) - {"Affine", "Copy"} <= kinds


def binary(inputs: list[str], name: str, k: int) -> list[Any]:
    """Binarization, a binary product, and its scales and biases."""
    return [
        ("vitc.Binarize", [inputs[0], f"{name}t", f"{name}f"], f"{name}bits", {}),
        ("vitc.PackBits", [f"{name}bits"], f"{name}packed", {"k": k}),
        ("vitc.BinaryLinear", [f"{name}packed", f"{name}w"], f"{name}ints", {"k": k}),
        ("Cast", [f"{name}ints"], f"{name}cast", {"to": 1}),
        ("Mul", [f"{name}cast", f"{name}s"], f"{name}scaled", {}),
        ("Add", [f"{name}scaled", f"{name}b"], f"{name}y", {}),
    ]


def weights(name: str, rows: int, k: int, outputs: int) -> dict[str, np.ndarray]:
    return {
        f"{name}t": normal(1, rows, 1),
        f"{name}f": RNG.random((1, rows, 1)) < 0.5,
        f"{name}w": pack_bits(RNG.integers(0, 2, (outputs, k), dtype=np.uint8)),
        f"{name}s": normal(outputs) / k,
        f"{name}b": normal(outputs),
    }


def mixed() -> ir.Model:
    """Floats between binary layers: a norm and a GELU, and a sum of both branches."""
    nodes = [
        *binary(["x"], "a", 71),
        ("LayerNormalization", ["ay", "g", "h"], "n", {}),
        ("Gelu", ["n"], "u", {}),
        *binary(["u"], "b", 40),
        ("Add", ["by", "x"], "sum", {}),
        ("Relu", ["sum"], "y", {}),
    ]
    constants = {**weights("a", 5, 71, 40), **weights("b", 5, 40, 71)}
    return onnx_graph([1, 5, 71], nodes, {**constants, "g": normal(40), "h": normal(40)})


@pytest.mark.parametrize("taps", [[], ["n", "sum"]])
def test_floats_and_steps_alternate(taps, tmp_path):
    x = normal(5, 71)
    plan = check_program(mixed(), x, find(NATIVE), tmp_path, taps=taps)
    kinds = [step.kernel.symbol.removeprefix("vitc_").rpartition("_")[0] for step in plan.steps]
    assert kinds.count("linear_float") == 2
    # A tap ends a fused function, and nothing else does.
    ours = ("copy_rows", "binarize", "linear_float", "layer_norm")
    floats = [kind for kind in kinds if kind not in ours]
    assert len(floats) == 2 + len(set(taps) - {"n"})


def test_equal_functions_are_one_kernel(tmp_path):
    nodes, constants = [], {}
    for i in range(2):
        source = f"y{i - 1}" if i else "x"
        nodes += [
            *binary([source], f"l{i}", 64),
            ("Gelu", [f"l{i}y"], f"u{i}", {}),
            ("Add", [f"u{i}", source], f"y{i}", {}),
        ]
        constants |= weights(f"l{i}", 8, 64, 64)
    plan = check_program(
        onnx_graph([1, 8, 64], nodes, constants), normal(8, 64), find(NATIVE), tmp_path
    )
    assert len({step.kernel.symbol for step in plan.steps}) == len(plan.steps) - 3


def every_function() -> ir.Model:
    """A chain with everything that could become a call of a C library."""
    kinds = [
        "Abs", "Erf", "Exp", "Gelu", "HardSwish", "LeakyRelu", "Neg", "Relu", "Sigmoid", "Tanh",
        "Softmax", "LayerNormalization", "ReduceMean", "Sqrt",
    ]  # fmt: skip
    nodes, last = [], "x"
    for kind in kinds:
        inputs = [last, "g", "h"] if kind == "LayerNormalization" else [last]
        inputs = [last, "axis"] if kind == "ReduceMean" else inputs
        if kind == "Sqrt":
            nodes.append(("Mul", [last, last], "square", {}))
            inputs = ["square"]
        last = f"y{kind}"
        nodes.append((kind, inputs, last, {}))
    nodes.append(("Reshape", ["x", "picture"], "x4", {}))
    nodes.append(("Conv", ["x4", "w"], "conv", {"pads": [2] * 4, "group": 5}))
    nodes.append(("MaxPool", ["conv"], "pool", {"kernel_shape": [2, 2]}))
    nodes.append(("ReduceSum", ["pool", "axes"], "sum", {}))
    nodes.append(("Reshape", ["sum", "one"], "sum3", {}))
    nodes.append(("Div", [last, "sum3"], "y", {}))
    constants = {
        "g": normal(71), "h": normal(71), "axis": whole(2), "axes": whole(1, 2, 3),
        "picture": whole(1, 5, 1, 71), "w": normal(5, 1, 3, 3), "one": whole(1, 1, 1),
    }  # fmt: skip
    return onnx_graph([1, *ODD], nodes, constants)


OF_LIBC = {"memcpy", "memmove", "memset"}


@pytest.mark.parametrize("target", TARGETS)
def test_kernels_call_nothing_but_libc(target):
    machine = TARGETS[target]
    plan = make_plan(every_function(), machine, [])
    assembly = emit_assembly(plan.kernels, machine)
    called = re.findall(r"^\s+(?:callq?|jmp|blx?|b)\s+([A-Za-z_]\w*)", assembly, re.MULTILINE)
    assert set(called) <= OF_LIBC
    assert len(plan.kernels) > 3


def test_a_function_without_a_polynomial_is_named():
    model = onnx_graph([1, *ODD], [("Log", ["x"], "y", {})], {})
    with pytest.raises(VitcError, match=r"y \(Log of layer of y\) is not compiled"):
        make_plan(model, find("x86"), [])
    model = onnx_graph([1, *ODD], [("Pow", ["x", "c"], "y", {})], {"c": np.float32(0.3)})
    with pytest.raises(VitcError, match=r"y \(Pow of layer of y\) is not compiled"):
        make_plan(model, find("x86"), [])
