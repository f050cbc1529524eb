from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from vitc.passes.constants import constant
from vitc.passes.linear_threshold import LinearThreshold
from vitc.passes.prelu_threshold import PReluThreshold

N, ROWS, K = 5, 12, 17
SHAPE = ("batch", N, ROWS)


def _linear(graph, rng, *, bias=True, scale=None):
    x = graph.input("x", ("batch", N, 3), dtype=ir.DataType.UINT8)
    weight = np.packbits(rng.integers(0, 2, (ROWS, K)), axis=-1, bitorder="little")
    value = graph.op("BinaryLinear", [x, graph.const(weight)], SHAPE, "INT32", k=K)
    value = graph.op("Cast", [value], SHAPE, to=1)
    scale = rng.random(ROWS).astype(np.float32) if scale is None else scale
    value = graph.op("Mul", [value, graph.const(scale)], SHAPE)
    if bias:
        value = _shifted(graph, value, rng.standard_normal(ROWS))
    return value


def _shifted(graph, value, shift, shape=SHAPE):
    return graph.op("Add", [value, graph.const(np.asarray(shift, np.float32))], shape)


def _images(rng):
    return np.packbits(rng.integers(0, 2, (40, N, K)), axis=-1, bitorder="little")


def _split(graph, value, heads):
    shape = ("batch", N, heads, ROWS // heads)
    sizes = graph.const(np.array([0, N, heads, ROWS // heads]))
    return graph.op("Reshape", [value, sizes], shape), shape


def test_bias_and_token_shift_become_offset_and_upper(graph, rng, run, counts) -> None:
    value = _shifted(graph, _linear(graph, rng), rng.standard_normal((1, N, 1)))
    model = graph.model(graph.sign(value))
    x = _images(rng)
    before = run(model, x=x)[0]
    assert LinearThreshold()(model).modified
    assert counts(model) == {"BinaryLinearThreshold": 1}
    np.testing.assert_array_equal(run(model, x=x)[0], before)
    shapes = [constant(v).shape for v in model.graph.node(0).inputs[1:]]
    assert shapes == [(ROWS, 3), (ROWS,), (ROWS,), (N, 1), (1, 1)]


def test_shifts_per_head_become_one_column_per_group(graph, rng, run, counts) -> None:
    value, shape = _split(graph, _linear(graph, rng), 3)
    value = _shifted(graph, value, rng.standard_normal((1, N, 3, 1)), shape)
    model = graph.model(graph.sign(value))
    x = _images(rng)
    before = run(model, x=x)[0]
    assert LinearThreshold()(model).modified
    assert counts(model) == {"BinaryLinearThreshold": 1, "Reshape": 1}
    np.testing.assert_array_equal(run(model, x=x)[0], before)
    assert constant(model.graph.node(0).inputs[4]).shape == (N, 3)


@pytest.mark.parametrize("bias", [False, True])
def test_two_sided_prelu_thresholds_are_fused(graph, rng, run, counts, bias) -> None:
    value = _shifted(graph, _linear(graph, rng, bias=bias), rng.standard_normal((1, N, 1)))
    slope = np.float32([-1.5, 0.3, 0, -0.2, 1]).reshape(N, 1)
    value = graph.op("PRelu", [value, graph.const(slope)], SHAPE)
    value = _shifted(graph, value, np.float32([-0.4, 0.3, -0.2, -0.1, 0]).reshape(N, 1))
    model = graph.model(graph.sign(value))
    x = _images(rng)
    before = run(model, x=x)[0]
    PReluThreshold()(model)
    assert counts(model)["Or"] == 1
    assert LinearThreshold()(model).modified
    assert counts(model) == {"BinaryLinearThreshold": 1}
    np.testing.assert_array_equal(run(model, x=x)[0], before)
    lower = constant(model.graph.node(0).inputs[5])
    np.testing.assert_array_equal(np.isfinite(lower[:, 0]), [True, False, False, True, False])


def test_exact_ties_and_zero_scales_count_as_plus_one(graph, rng, run) -> None:
    scale = np.full(ROWS, 0.25, np.float32)
    scale[[1, 5]] = 0
    value = _linear(graph, rng, bias=False, scale=scale)
    value = _shifted(graph, value, 0.25 * rng.integers(-4, 5, ROWS))
    value = _shifted(graph, value, 0.25 * rng.integers(-4, 5, (N, 1)))
    pre = value
    model = graph.model(graph.sign(value), pre)
    x = _images(rng)
    before, values = run(model, x=x)
    assert (values == 0).mean() > 0.02
    model.graph.outputs.pop()
    LinearThreshold()(model)
    np.testing.assert_array_equal(run(model, x=x)[0], before)
    np.testing.assert_array_equal(before, values >= 0)


def test_equal_thresholds_are_stored_once(graph, rng) -> None:
    model = graph.model(graph.sign(_linear(graph, rng)))
    LinearThreshold()(model)
    assert constant(model.graph.node(0).inputs[4]).shape == (1, 1)


def test_a_shift_per_token_and_row_is_left_alone(graph, rng, counts) -> None:
    value = _shifted(graph, _linear(graph, rng), rng.standard_normal((N, ROWS)))
    model = graph.model(graph.sign(value))
    assert not LinearThreshold()(model).modified
    assert counts(model)["BinaryLinear"] == 1


def test_a_sum_that_is_needed_elsewhere_is_left_alone(graph, rng) -> None:
    value = _linear(graph, rng)
    model = graph.model(graph.sign(value), value)
    assert not LinearThreshold()(model).modified


def test_a_flipped_sign_is_left_alone(graph, rng) -> None:
    zero, yes = graph.const(np.float32(0)), graph.const(np.bool_(True))
    bits = graph.op("Binarize", [_linear(graph, rng), zero, yes], SHAPE, "UINT8")
    assert not LinearThreshold()(graph.model(bits)).modified
