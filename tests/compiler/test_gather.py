"""Phase `gather`: floats in an order that a kernel does not read are copied into it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.compiler.graphs import onnx_graph
from tests.compiler.programs import check_program
from tests.processors import NATIVE
from vitc.compiler.fuse import fuse
from vitc.compiler.gather import gather
from vitc.compiler.orders import orders
from vitc.compiler.read import read
from vitc.dialect.packing import pack_bits
from vitc.targets.table import find

RNG = np.random.default_rng(11)


def whole(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


WINDOWS: list[Any] = [
    ("Reshape", ["x", "split"], "r", {}),
    ("Transpose", ["r"], "t", {"perm": [0, 1, 3, 2, 4, 5]}),
    ("Reshape", ["t", "join"], "v", {}),
]
SHIFTED: list[Any] = [
    ("Gather", ["x", "shift"], "s", {"axis": 1}),
    ("Gather", ["s", "shift"], "u", {"axis": 2}),
    ("Reshape", ["u", "split"], "r", {}),
    *WINDOWS[1:],
]
MERGED: list[Any] = [
    ("Reshape", ["x", "split"], "r", {}),
    ("Transpose", ["r"], "t", {"perm": [0, 1, 3, 4, 2, 5]}),
    ("Reshape", ["t", "merge"], "v", {}),
]
SOME: list[Any] = [("Slice", ["x", "first", "last", "axis"], "r", {}),
                   ("Reshape", ["r", "few"], "v", {})]  # fmt: skip
SOME_TURNED: list[Any] = [*SOME, ("Transpose", ["v"], "z", {"perm": [0, 2, 1]})]
# 4 x 4 tokens of 33 channels, as windows of 2 x 2, as quads, or the first half.
NETWORKS = {
    "windows": (WINDOWS, (4, 4, 33)),
    "shifted windows": (SHIFTED, (4, 4, 33)),
    "merged tokens": (MERGED, (4, 132)),
    "some tokens": (SOME, (8, 33)),
}
COPIED = {"some tokens, channels first": (SOME_TURNED, (33, 8))}


def network(views: list[Any], shape: tuple[int, ...]) -> Any:
    k = shape[-1]
    nodes = [
        *views,
        ("vitc.Binarize", [views[-1][2], "theta", "flip"], "bits", {}),
        ("vitc.PackBits", ["bits"], "packed", {"k": k}),
        ("vitc.BinaryLinear", ["packed", "w"], "ints", {"k": k}),
        ("Cast", ["ints"], "y", {"to": 1}),
    ]
    rows = (1, *shape[:-1], 1)
    constants = {
        "split": whole(1, 2, 2, 2, 2, 33), "join": whole(1, 4, 4, 33), "merge": whole(1, 4, 132),
        "shift": whole(1, 2, 3, 0), "first": whole(0), "last": whole(2), "axis": whole(1),
        "few": whole(1, 8, 33), "theta": RNG.standard_normal(rows).astype(np.float32),
        "flip": RNG.random(rows) < 0.5,
        "w": pack_bits(RNG.integers(0, 2, (40, k), dtype=np.uint8)),
    }  # fmt: skip
    return onnx_graph([1, 4, 4, 33], nodes, constants)


@pytest.mark.parametrize("name", [*NETWORKS, *COPIED])
def test_bits_of_views_are_those_of_onnx_runtime(name, tmp_path):
    x = RNG.standard_normal((4, 4, 33)).astype(np.float32)
    model = network(*{**NETWORKS, **COPIED}[name])
    plan = check_program(model, x, find(NATIVE), tmp_path, atol=0)
    # A copy to the distance of other floats (or into their order), a binarization, a product.
    assert len(plan.steps) == 3
    assert sum("copy_rows" in step.kernel.symbol for step in plan.steps) == (name in NETWORKS)


@pytest.mark.parametrize("name", COPIED)
def test_one_copy_stands_before_a_reader_that_does_not_know_the_order(name):
    graph = gather(fuse(orders(read(network(*COPIED[name]), []))))
    assert [op.kind for op in graph.ops] == ["Copy", "Binarize", "LinearFloat"]
    assert graph.ops[0].output.shape == COPIED[name][1]
    assert graph.ops[1].use(0).whole


@pytest.mark.parametrize("name", [*NETWORKS, "as they lie"])
def test_rows_that_are_read_one_by_one_are_not_copied(name):
    views, shape = NETWORKS.get(name, ([("Identity", ["x"], "v", {})], (4, 4, 33)))
    graph = gather(fuse(orders(read(network(views, shape), []))))
    assert [op.kind for op in graph.ops] == ["Binarize", "LinearFloat"]


def test_signs_that_are_read_in_two_orders_are_made_for_each(tmp_path):
    nodes = [
        ("vitc.Binarize", ["x", "theta", "flip"], "bits", {}),
        ("vitc.PackBits", ["bits"], "plain", {"k": 33}),
        ("vitc.BinaryLinear", ["plain", "w"], "i", {"k": 33}),
        ("Cast", ["i"], "f", {"to": 1}),
        ("Reshape", ["bits", "split"], "r", {}),
        *WINDOWS[1:],
        ("vitc.PackBits", ["v"], "windows", {"k": 33}),
        ("vitc.BinaryLinear", ["windows", "w2"], "j", {"k": 33}),
        ("Cast", ["j"], "g", {"to": 1}),
        ("Add", ["f", "g"], "y", {}),
    ]
    weights = RNG.integers(0, 2, (2, 40, 33), dtype=np.uint8)
    constants = {
        "theta": RNG.standard_normal((4, 4, 1)).astype(np.float32),
        "flip": RNG.random((4, 4, 1)) < 0.5,
        "split": whole(1, 2, 2, 2, 2, 33), "join": whole(1, 4, 4, 33),
        "w": pack_bits(weights[0]), "w2": pack_bits(weights[1]),
    }  # fmt: skip
    x = RNG.standard_normal((4, 4, 33)).astype(np.float32)
    model = onnx_graph([1, 4, 4, 33], nodes, constants)
    plan = check_program(model, x, find(NATIVE), tmp_path, atol=0, taps=["bits"])
    assert sum("binarize" in step.kernel.symbol for step in plan.steps) == 2


def test_a_picture_of_few_colours_becomes_lines_with_the_padding_of_its_convolution():
    nodes = [("Conv", ["x", "w"], "y", {"pads": [1, 2, 0, 3], "strides": [1, 2]})]
    weight = RNG.standard_normal((4, 3, 3, 3)).astype(np.float32)
    model = onnx_graph([1, 3, 6, 7], nodes, {"w": weight})
    graph = gather(fuse(orders(read(model, []))))
    lines, product = graph.ops
    assert (lines.kind, lines.attributes) == ("Lines", {"before": (1, 2)})
    assert lines.output.shape == (1 + 6, (2 + 7 + 3) * 3)
    assert product.attributes["pads"] == (0, 0, 0, 0)
    assert product.use(0).shape == (7, 12, 3)


def test_a_picture_that_does_not_lie_evenly_is_copied_before_it_becomes_lines(tmp_path):
    # Rows of 42 floats lie apart in a buffer, and lines of 36 are parts of them.
    nodes = [
        ("Relu", ["x"], "h", {}),
        ("Reshape", ["h", "picture"], "p", {}),
        ("Conv", ["p", "w"], "y", {"pads": [1] * 4}),
    ]
    weight = RNG.standard_normal((5, 3, 3, 3)).astype(np.float32)
    model = onnx_graph([1, 6, 42], nodes, {"w": weight, "picture": whole(1, 3, 7, 12)})
    graph = gather(fuse(orders(read(model, []))))
    assert [op.kind for op in graph.ops] == ["Relu", "Copy", "Lines", "FloatLinear"]
    x = RNG.standard_normal((6, 42)).astype(np.float32)
    check_program(model, x, find(NATIVE), tmp_path)
