from __future__ import annotations

import numpy as np
import onnx_ir as ir

from vitc.passes.constants import constant
from vitc.passes.integer_threshold import IntegerThreshold


def _shifted_sign(graph, value, shift, shape):
    value = graph.op("Cast", [value], shape, to=1)
    value = graph.op("Add", [value, graph.const(np.asarray(shift, np.float32))], shape)
    return graph.sign(value)


def _integers(graph, shape):
    return graph.input("x", shape, dtype=ir.DataType.INT32)


def test_real_shifts_become_integer_thresholds(graph, rng, run, counts) -> None:
    shift = np.concatenate([rng.uniform(-5, 5, 12), [-3, 0, -0.0, 2, 1e-30, -1e-30]])[:, None]
    bits = _shifted_sign(graph, _integers(graph, ("batch", 18, 4)), shift, ("batch", 18, 4))
    model = graph.model(bits)
    x = rng.integers(-6, 7, (200, 18, 4)).astype(np.int32)
    assert IntegerThreshold()(model).modified
    assert counts(model) == {"IntegerThreshold": 1}
    expected = x + shift.astype(np.float32).astype(np.float64) >= 0
    np.testing.assert_array_equal(run(model, x=x)[0], expected)


def test_the_threshold_moves_above_transpose_and_head_merge(graph, rng, run, counts) -> None:
    heads = _integers(graph, ("batch", 3, 7, 4))
    swapped = graph.op("Transpose", [heads], ("batch", 7, 3, 4), "INT32", perm=[0, 2, 1, 3])
    sizes = graph.const(np.array([0, 7, 12]))
    merged = graph.op("Reshape", [swapped, sizes], ("batch", 7, 12), "INT32")
    bits = _shifted_sign(graph, merged, rng.uniform(-3, 3, (1, 7, 1)), ("batch", 7, 12))
    model = graph.model(bits)
    x = rng.integers(-4, 5, (9, 3, 7, 4)).astype(np.int32)
    before = run(model, x=x)[0]
    assert IntegerThreshold()(model).modified
    assert [node.op_type for node in model.graph] == ["IntegerThreshold", "Transpose", "Reshape"]
    assert constant(model.graph.node(0).inputs[1]).shape == (1, 1, 7, 1)
    np.testing.assert_array_equal(run(model, x=x)[0], before)


def test_a_threshold_per_merged_column_stays_below_the_merge(graph, rng, run) -> None:
    heads = _integers(graph, ("batch", 7, 3, 4))
    sizes = graph.const(np.array([0, 7, 12]))
    merged = graph.op("Reshape", [heads, sizes], ("batch", 7, 12), "INT32")
    bits = _shifted_sign(graph, merged, rng.uniform(-3, 3, 12), ("batch", 7, 12))
    model = graph.model(bits)
    x = rng.integers(-4, 5, (9, 7, 3, 4)).astype(np.int32)
    before = run(model, x=x)[0]
    IntegerThreshold()(model)
    assert [node.op_type for node in model.graph] == ["Reshape", "IntegerThreshold"]
    np.testing.assert_array_equal(run(model, x=x)[0], before)


def test_infinite_shifts_always_or_never_hold(graph, run) -> None:
    bits = _shifted_sign(graph, _integers(graph, ("batch", 2)), [np.inf, -np.inf], ("batch", 2))
    model = graph.model(bits)
    IntegerThreshold()(model)
    x = np.array([[-(10**6), 10**6]], np.int32)
    np.testing.assert_array_equal(run(model, x=x)[0], [[1, 0]])


def test_a_scaled_integer_is_left_alone(graph, counts) -> None:
    value = graph.op("Cast", [_integers(graph, ("batch", 4))], ("batch", 4), to=1)
    value = graph.op("Mul", [value, graph.const(np.float32(0.5))], ("batch", 4))
    model = graph.model(graph.sign(value))
    assert not IntegerThreshold()(model).modified
    assert counts(model) == {"Cast": 1, "Mul": 1, "Binarize": 1}


def test_a_float_is_left_alone(graph) -> None:
    x = graph.input("x", ("batch", 4))
    shifted = graph.op("Add", [x, graph.const(np.float32(0.5))], ("batch", 4))
    assert not IntegerThreshold()(graph.model(graph.sign(shifted))).modified
