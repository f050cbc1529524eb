"""Phase `read`: constants are folded, the axis of images is left out, and nonsense is named."""

from __future__ import annotations

import numpy as np
import pytest

from tests.compiler.graphs import onnx_graph
from vitc.compiler.graph import VIEW, Graph
from vitc.compiler.read import read
from vitc.errors import VitcError


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def read_one(kind: str, shape, attributes=None, **constants: np.ndarray) -> Graph:
    """Read a graph of one operator on `x` and constants, in their order."""
    nodes = [(kind, ["x", *constants], "y", attributes or {})]
    return read(onnx_graph(shape, nodes, constants), ["y"])


VIEWS = {
    "reshape": ("Reshape", {}, {"s": ints(-1, 3, 8)}, (("reshape", (3, 8)),)),
    "reshape that copies": ("Reshape", {}, {"s": ints(0, 0, 2, 2)}, (("reshape", (6, 2, 2)),)),
    "reshape that counts": ("Reshape", {}, {"s": ints(1, -1, 2)}, (("reshape", (12, 2)),)),
    "transpose": ("Transpose", {"perm": (0, 2, 1)}, {}, (("transpose", (1, 0)),)),
    "gather": ("Gather", {"axis": 1}, {"i": ints(5, -1)}, (("take", (0, 5, 5)),
               ("reshape", (2, 4)))),
    "gather of one": ("Gather", {"axis": -2}, {"i": np.array(2)}, (("take", (0, 2)),
                      ("reshape", (4,)))),
    "slice": ("Slice", {}, {"a": ints(1), "b": ints(2**62), "c": ints(1), "d": ints(2)},
              (("take", (0, 1, 3, 5)),)),
    "flatten": ("Flatten", {}, {}, (("reshape", (24,)),)),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "attributes", "constants", "views"), VIEWS.values(), ids=VIEWS)
def test_views_have_no_axis_of_images(kind, attributes, constants, views):
    graph = read_one(kind, ["images", 6, 4], attributes, **constants)
    (op,) = graph.ops
    assert (op.kind, op.attributes["views"]) == (VIEW, views)
    assert graph.outputs["y"].value.taps == [("y", ())]
    x = np.arange(24).reshape(6, 4)
    assert graph.outputs["y"].shape == np.empty(op.output.shape).shape
    assert op.output.shape == _applied(x, views).shape


def _applied(x: np.ndarray, views) -> np.ndarray:
    from vitc.targets.layouts.views import apply_views

    return apply_views(x, views)


REFUSED = {
    "images joined with windows": ("Reshape", {}, {"s": ints(-1, 4)}, "joins the axis of images"),
    "as many images as windows": ("Reshape", {}, {"s": ints(6, 4)}, "joins the axis of images"),
    "too few elements": ("Reshape", {}, {"s": ints(-1, 5, 4)}, "joins the axis of images"),
    "an axis too many": ("Transpose", {"perm": (0, 1, 2, 3)}, {}, "is none of 3 axes"),
    "picked images": ("Gather", {"axis": 0}, {"i": ints(0)}, "touches the axis of images"),
    "picked beyond": ("Gather", {"axis": 1}, {"i": ints(6)}, "beyond the 6"),
    "nothing taken": ("Slice", {}, {"a": ints(4), "b": ints(2), "c": ints(1)}, "takes nothing"),
    "unknown": ("BitwiseNot", {}, {}, "no kernel computes it"),
    "another length": ("vitc.PackBits", {"k": 5}, {}, "contracts 5 bits, but its input has 4"),
    "no length": ("vitc.PackBits", {}, {}, "contracts None bits"),
    "a weight of another width": (
        "vitc.BinaryLinearThreshold", {"k": 4},
        {"w": np.zeros((3, 2), np.uint8), "s": np.zeros(3, np.float32)}, "its weight is of"),
    "a residual of another shape": (
        "vitc.BinaryLinearResidual", {"k": 4, "transposed": 1},
        {"w": np.zeros((3, 1), np.uint8), "s": np.zeros(3), "b": np.zeros(3), "g": np.ones((1, 1)),
         "r": np.zeros((6, 3))}, "is added to"),
}  # fmt: skip


MOVED = ("Transpose", ["x"], "t", {"perm": (1, 0, 2)})


def test_images_that_views_have_moved_come_back_to_the_front():
    nodes = [
        MOVED,
        ("Slice", ["t", "a", "b", "c"], "s", {}),
        ("Gather", ["s", "i"], "y", {"axis": 0}),
    ]
    model = onnx_graph(
        ["images", 6, 4], nodes, {"a": ints(2), "b": ints(5), "c": ints(0), "i": np.array(1)}
    )
    taken = [op.attributes["views"] for op in read(model, []).ops]
    assert taken[1:] == [(("take", (0, 2, 3, 4)),), (("take", (0, 1)), ("reshape", (4,)))]


def test_nothing_is_computed_or_given_out_while_images_are_not_first():
    model = onnx_graph(["images", 6, 4], [MOVED, ("Relu", ["t"], "y", {})], {})
    with pytest.raises(VitcError, match=r"y \(Relu of layer of y\).*images does not come first"):
        read(model, [])
    with pytest.raises(VitcError, match="first axis of the output t"):
        read(onnx_graph(["images", 6, 4], [MOVED], {}), [])


@pytest.mark.parametrize(("kind", "attributes", "constants", "says"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_compiled_is_named_with_its_layer(kind, attributes, constants, says):
    with pytest.raises(VitcError) as refused:
        read_one(kind, ["images", 6, 4], attributes, **constants)
    assert says in refused.value.message
    assert f"y ({kind.removeprefix('vitc.')} of layer of y)" in refused.value.message


def test_what_does_not_depend_on_the_image_is_folded():
    nodes = [
        ("Shape", ["x"], "n", {"start": 0, "end": 1}),
        ("Concat", ["n", "sizes"], "shape", {"axis": 0}),
        ("Expand", ["token", "shape"], "tokens", {}),
        ("Concat", ["tokens", "x"], "y", {"axis": 1}),
    ]
    token = np.arange(4, dtype=np.float32).reshape(1, 1, 4)
    graph = read(onnx_graph(["images", 6, 4], nodes, {"sizes": ints(2, 4), "token": token}), ["y"])
    (op,) = graph.ops
    assert op.output.shape == (8, 4)
    assert np.array_equal(op.constant(0), np.repeat(token, 2, 1))


@pytest.mark.parametrize("sizes", [ints(1 << 40, 4), ints(1 << 20, 1 << 20)])
def test_a_constant_larger_than_memory_is_not_made(sizes):
    nodes = [("Expand", ["token", "shape"], "c", {}), ("Add", ["x", "c"], "y", {})]
    constants = {"shape": sizes, "token": np.zeros((1, 1), np.float32)}
    with pytest.raises(VitcError, match="no sensible size"):
        read(onnx_graph(["images", 6, 4], nodes, constants), [])


def test_views_of_values_larger_than_memory_are_refused():
    nodes = [("Add", ["x", "c"], "a", {}), ("Transpose", ["a"], "y", {"perm": (0, 2, 1)})]
    constants = {"c": np.zeros((1, 1, 1), np.float32)}
    with pytest.raises(VitcError, match=r"y \(Transpose .* no sensible size"):
        read(onnx_graph(["images", 1 << 14, 1 << 13], nodes, constants), [])


def test_sizes_that_the_file_states_are_not_believed():
    model = onnx_graph(["images", 6, 4], [("Transpose", ["x"], "y", {"perm": (0, 2, 1)})], {})
    import onnx_ir as ir

    next(iter(model.graph)).outputs[0].shape = ir.Shape(["images", 99, 99])
    assert read(model, []).outputs["y"].shape == (4, 6)


def test_an_input_without_a_size_is_refused():
    with pytest.raises(VitcError, match="The input x has no fixed size"):
        read(onnx_graph(["images", "n", 4], [("Identity", ["x"], "y", {})], {}), [])


def test_an_output_that_is_a_constant_is_refused():
    with pytest.raises(VitcError, match="output y does not depend on the input"):
        read(onnx_graph(["images", 4], [("Identity", ["c"], "y", {})], {"c": ints(1)}), [])


def test_a_convolution_reads_and_writes_rows_of_channels():
    weight = np.zeros((5, 3, 4, 4), np.float32)
    graph = read_one("Conv", ["images", 3, 8, 12], {"strides": (4, 4)}, w=weight)
    turned, convolution, view = graph.ops
    assert turned.output.shape == (8, 12, 3)
    assert convolution.use(0).value is turned.output
    assert convolution.output.shape == (2, 3, 5)
    assert view.output.shape == (5, 2, 3)
    assert convolution.output.taps == []
    assert view.output.taps == [("y", ())]
