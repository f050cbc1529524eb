"""Phase `orders`: views vanish, readers read through them, and taps know their way."""

from __future__ import annotations

import numpy as np

from tests.compiler.graphs import onnx_graph
from vitc.compiler.graph import Graph
from vitc.compiler.orders import orders
from vitc.compiler.read import read
from vitc.targets.layouts.views import apply_views

_SIGN = {"zero": np.zeros((1, 1), np.float32), "no": np.zeros((1, 1), bool)}


def sizes(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def ordered(shape, nodes, constants, taps=()) -> Graph:
    return orders(read(onnx_graph(shape, nodes, {**constants, **_SIGN}), taps))


def test_an_operator_reads_through_all_views_before_it():
    nodes = [
        ("Reshape", ["x", "s"], "a", {}),
        ("Transpose", ["a"], "b", {"perm": (0, 2, 1, 3)}),
        ("vitc.Binarize", ["b", "zero", "no"], "y", {}),
    ]
    graph = ordered(["images", 10, 24], nodes, {"s": sizes(-1, 10, 3, 8)})
    (op,) = graph.ops
    use = op.use(0)
    assert use.value is graph.inputs[0]
    wanted = np.arange(240).reshape(10, 3, 8).transpose(1, 0, 2)
    assert np.array_equal(use.elements, wanted)
    assert use.order is not None
    assert (use.order.heads, use.order.in_place) == (3, True)


def test_packing_is_no_view():
    nodes = [
        ("vitc.Binarize", ["x", "zero", "no"], "bits", {}),
        ("vitc.PackBits", ["bits"], "packed", {"k": 24}),
        ("vitc.BinaryLinearThreshold", ["packed", "w", "s", "s", "t", "t"], "y", {"k": 24}),
    ]
    constants = {
        "w": np.zeros((5, 3), np.uint8),
        "s": np.ones(5, np.float32),
        "t": np.zeros((1, 1), np.float32),
    }
    binarize, linear = ordered(["images", 10, 24], nodes, constants).ops
    assert linear.use(0).value is binarize.output
    assert linear.use(0).elements is None


def test_a_tap_on_a_view_belongs_to_the_value_before_it():
    nodes = [
        ("vitc.Binarize", ["x", "zero", "no"], "plain", {}),
        ("Reshape", ["plain", "s"], "a", {}),
        ("Transpose", ["a"], "turned", {"perm": (0, 2, 1, 3)}),
        ("Gather", ["turned", "i"], "y", {"axis": 1}),
    ]
    constants = {"s": sizes(-1, 10, 3, 8), "i": sizes(2, 0)}
    graph = ordered(["images", 10, 24], nodes, constants, ("plain", "turned", "y"))
    (op,) = graph.ops
    found = {
        name: apply_views(np.arange(240).reshape(10, 24), views) for name, views in op.output.taps
    }
    turned = np.arange(240).reshape(10, 3, 8).transpose(1, 0, 2)
    assert list(found) == ["plain", "turned", "y"]
    assert np.array_equal(found["turned"], turned)
    assert np.array_equal(found["y"], turned[[2, 0]])
    assert op.output.tap == "plain"


def test_slices_of_one_value_put_side_by_side_are_rows_read_together():
    # Merging of 2 x 2 patches, as Swin does it.
    nodes = [("Reshape", ["x", "grid"], "g", {})]
    for i, (y, x) in enumerate([(0, 0), (1, 0), (0, 1), (1, 1)]):
        nodes += [
            ("Slice", ["g", f"s{y}", "end", "one", "two"], f"r{i}", {}),
            ("Slice", [f"r{i}", f"s{x}", "end", "two", "two"], f"p{i}", {}),
        ]
    nodes += [
        ("Concat", ["p0", "p1", "p2", "p3"], "c", {"axis": -1}),
        ("Reshape", ["c", "rows"], "merged", {}),
        ("Softmax", ["merged"], "y", {"axis": -1}),
    ]
    constants = {"grid": sizes(-1, 4, 4, 5), "rows": sizes(-1, 4, 20), "end": sizes(9)}
    constants |= {"s0": sizes(0), "s1": sizes(1), "one": sizes(1), "two": sizes(2)}
    graph = ordered(["images", 16, 5], nodes, constants, ("c",))
    (op,) = graph.ops
    order = op.use(0).order
    assert order is not None
    assert order.rows.tolist() == [[[0, 4, 1, 5], [2, 6, 3, 7], [8, 12, 9, 13], [10, 14, 11, 15]]]
    ((name, views),) = graph.inputs[0].taps
    grid = np.arange(80).reshape(4, 4, 5)
    merged = np.concatenate(
        [grid[0::2, 0::2], grid[1::2, 0::2], grid[0::2, 1::2], grid[1::2, 1::2]], -1
    )
    assert name == "c"
    assert np.array_equal(apply_views(np.arange(80).reshape(16, 5), views), merged)


def test_a_concat_of_two_values_stays_an_operator():
    nodes = [
        ("vitc.Binarize", ["x", "zero", "no"], "a", {}),
        ("vitc.Binarize", ["x", "zero", "no"], "b", {}),
        ("Concat", ["a", "b"], "y", {"axis": 1}),
    ]
    graph = ordered(["images", 10, 24], nodes, {})
    assert [op.kind for op in graph.ops] == ["Binarize", "Binarize", "Concat"]


def windowed(x: str, made: str) -> list:
    """Nodes that put 4 x 4 tokens of 5 channels into windows of 2 x 2."""
    return [
        ("Reshape", [x, "cut"], f"{made}.c", {}),
        ("Transpose", [f"{made}.c"], f"{made}.t", {"perm": (0, 1, 3, 2, 4, 5)}),
        ("Reshape", [f"{made}.t", "windows"], made, {}),
    ]


WINDOWS = {"cut": sizes(1, 2, 2, 2, 2, 5), "windows": sizes(1, 4, 4, 5), "all": sizes(1, 16, 5)}
ORDER = np.arange(16).reshape(2, 2, 2, 2).swapaxes(1, 2).reshape(4, 4)


def test_signs_of_windows_are_made_as_floats_lie_and_thresholds_with_them():
    theta = np.random.default_rng(1).standard_normal((4, 4, 1)).astype(np.float32)
    nodes = [*windowed("x", "w"), ("vitc.Binarize", ["w", "theta", "no"], "bits", {}),
             ("Softmax", ["bits"], "y", {"axis": -1})]  # fmt: skip
    sign, reader = ordered(["images", 16, 5], nodes, {**WINDOWS, "theta": theta}).ops
    assert sign.use(0).elements is None
    assert np.array_equal(sign.constant(1).reshape(-1)[ORDER], theta[..., 0])
    order = reader.use(0).order
    assert order is not None
    assert np.array_equal(order.rows[..., 0], ORDER)


def test_signs_of_some_rows_that_are_turned_are_made_of_the_rows():
    # Spatial interaction of the tokens before the codes.
    theta = np.random.default_rng(2).standard_normal((5, 1)).astype(np.float32)
    nodes = [
        ("Slice", ["x", "from", "to", "one"], "some", {}),
        ("Transpose", ["some"], "turned", {"perm": (0, 2, 1)}),
        ("vitc.Binarize", ["turned", "theta", "no"], "bits", {}),
        ("vitc.PackBits", ["bits"], "packed", {"k": 7}),
        ("Slice", ["x", "from", "to", "one"], "residual", {}),
        ("vitc.BinaryLinearResidual", ["packed", "w", "s", "s", "g", "residual"], "y", {"k": 7}),
    ]
    constants = {"theta": theta, "from": sizes(2), "to": sizes(9), "one": sizes(1)}
    constants |= {"w": np.zeros((7, 1), np.uint8), "s": np.ones(7, np.float32)}
    constants |= {"g": np.ones((5, 1), np.float32)}
    nodes[-1][3]["transposed"] = 1
    sign, reader = ordered(["images", 16, 5], nodes, constants, ("bits",)).ops
    read, seen = sign.use(0), reader.use(0)
    assert np.array_equal(read.elements, np.arange(80).reshape(16, 5)[2:9])
    assert np.array_equal(apply_views(np.arange(80).reshape(16, 5), read.views), read.elements)
    assert np.array_equal(np.broadcast_to(sign.constant(1), (7, 5)), theta.T.repeat(7, 0))
    assert np.array_equal(seen.elements, np.arange(35).reshape(7, 5).T)
    ((name, views),) = sign.output.taps
    assert name == "bits"
    assert np.array_equal(apply_views(np.arange(35).reshape(7, 5), views), seen.elements)


def test_a_sum_of_windows_is_the_stream_again():
    # The product's rows are added to the rows of the stream that the windows name.
    nodes = [
        *windowed("x", "w"),
        ("vitc.Binarize", ["w", "zero", "no"], "bits", {}),
        ("vitc.BinaryLinearResidual", ["bits", "weight", "s", "s", "one", "w"], "sum",
         {"k": 5, "transposed": 0}),
        ("Reshape", ["sum", "cut"], "r", {}),
        ("Transpose", ["r"], "t", {"perm": (0, 1, 3, 2, 4, 5)}),
        ("Reshape", ["t", "all"], "joined", {}),
        ("Softmax", ["joined"], "y", {"axis": -1}),
    ]  # fmt: skip
    constants = {"weight": np.zeros((5, 1), np.uint8), "s": np.ones(5, np.float32)}
    constants["one"] = np.ones((1, 1), np.float32)
    graph = ordered(["images", 16, 5], nodes, {**WINDOWS, **constants}, ("sum", "joined"))
    _, total, reader = graph.ops
    assert total.use(5).elements is None
    assert np.array_equal(total.attributes["written"].rows[..., 0], ORDER)
    assert total.output.shape == (16, 5)
    assert reader.use(0).elements is None, "windows and back again is nothing"
    rows = np.arange(80).reshape(16, 5)
    found = {name: apply_views(rows, views) for name, views in total.output.taps}
    assert np.array_equal(found["joined"], rows)
    assert np.array_equal(found["sum"], rows[ORDER])


def test_shifted_tokens_of_a_map_are_added_as_rows():
    # Each pixel of a map [3, 2, 2] and its neighbour below, of tokens [4, 3].
    nodes = [
        ("Transpose", ["x"], "t", {"perm": (0, 2, 1)}),
        ("Reshape", ["t", "map"], "m", {}),
        ("Gather", ["m", "below"], "shifted", {"axis": 2}),
        ("Add", ["m", "shifted"], "sum", {}),
        ("Mul", ["sum", "gain"], "y", {}),
    ]
    gain = np.arange(1, 4, dtype=np.float32).reshape(1, 3, 1, 1)
    constants = {"map": sizes(-1, 3, 2, 2), "below": sizes(1, 0), "gain": gain}
    graph = ordered(["images", 4, 3], nodes, constants)
    added, scaled = graph.ops
    assert added.use(0).elements is None
    order = added.use(1).order
    assert order is not None
    assert (order.along, order.rows.reshape(-1).tolist()) == ("channels", [2, 3, 0, 1])
    assert (added.output.shape, scaled.output.shape) == ((4, 3), (4, 3))
    assert scaled.constant(1).reshape(-1).tolist() == [1, 2, 3]
    (use,) = graph.outputs.values()
    wanted = np.arange(12).reshape(4, 3).T.reshape(3, 2, 2)
    assert np.array_equal(use.elements, wanted)


def test_channels_that_are_shifted_apart_stay_a_view():
    nodes = [
        ("Transpose", ["x"], "t", {"perm": (0, 2, 1)}),
        ("Gather", ["t", "around"], "shifted", {"axis": 1}),
        ("Add", ["t", "shifted"], "y", {}),
    ]
    graph = ordered(["images", 4, 3], nodes, {"around": sizes(1, 2, 0)})
    (added,) = graph.ops
    assert added.output.shape == (3, 4)
