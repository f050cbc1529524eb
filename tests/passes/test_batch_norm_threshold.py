from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitc.passes.batch_norm_threshold import BatchNormThreshold, sign_change
from vitc.passes.constants import constant

N = 9


def _normed(graph, rng, *, shift=None, shape=("batch", N, 4), gain=None, variance=None):
    x = graph.input("x", shape)
    gain = rng.standard_normal(N) if gain is None else gain
    variance = rng.random(N) + 0.1 if variance is None else variance
    parameters = (gain, rng.standard_normal(N), rng.standard_normal(N), variance)
    constants = [graph.const(np.asarray(p, np.float32)) for p in parameters]
    value = graph.op("BatchNormalization", [x, *constants], shape, epsilon=1e-6)
    if shift is not None:
        value = graph.op("Add", [value, graph.const(shift)], shape)
    return parameters, graph.sign(value)


def _float64_bits(parameters, x, shift):
    gain, bias, mean, variance = (
        np.asarray(p, np.float32).astype(np.float64)[:, None] for p in parameters
    )
    return (x - mean) / np.sqrt(variance + 1e-6) * gain + bias + shift >= 0


@pytest.mark.parametrize("shift_shape", [None, (1, N, 1), (N, 1), ()])
def test_bits_equal_float64_for_gains_of_both_signs(graph, rng, run, counts, shift_shape) -> None:
    shift = None
    if shift_shape is not None:
        shift = np.asarray(rng.standard_normal(shift_shape), np.float32)
    gain = rng.standard_normal(N)
    gain[2] = 0
    variance = rng.random(N)
    variance[3] = 1e-12
    parameters, bits = _normed(graph, rng, shift=shift, gain=gain, variance=variance)
    model = graph.model(bits)
    x = (2 * rng.standard_normal((300, N, 4))).astype(np.float32)
    assert BatchNormThreshold()(model).modified
    assert counts(model) == {"Binarize": 1}
    expected = _float64_bits(parameters, x, 0 if shift is None else shift.reshape(-1, 1))
    np.testing.assert_array_equal(run(model, x=x)[0], expected)


def test_thresholds_are_exact_to_the_last_float(graph, rng, run) -> None:
    parameters, bits = _normed(graph, rng)
    model = graph.model(bits)
    BatchNormThreshold()(model)
    threshold = constant(model.graph.node(0).inputs[1]).reshape(N)
    below = np.nextafter(threshold, np.float32(-np.inf))
    x = np.stack([below, threshold, threshold, below], axis=-1)[None]
    np.testing.assert_array_equal(run(model, x=x)[0], _float64_bits(parameters, x, 0))
    at, before = run(model, x=x)[0][0, :, 1], run(model, x=x)[0][0, :, 0]
    assert (at != before).all()


def test_channels_of_the_transposed_stream_are_axis_1_too(graph, rng, run) -> None:
    _, bits = _normed(graph, rng, shape=("batch", N, 5), shift=np.ones((1, N, 1), "f4"))
    model = graph.model(bits)
    x = rng.standard_normal((4, N, 5)).astype(np.float32)
    before = run(model, x=x)[0]
    BatchNormThreshold()(model)
    np.testing.assert_array_equal(run(model, x=x)[0], before)


def test_a_shift_per_channel_of_the_last_axis_is_left_alone(graph, rng, counts) -> None:
    _, bits = _normed(graph, rng, shift=np.ones(4, np.float32))
    model = graph.model(bits)
    assert not BatchNormThreshold()(model).modified
    assert counts(model) == {"BatchNormalization": 1, "Add": 1, "Binarize": 1}


def test_a_norm_that_is_an_output_is_left_alone(graph, rng) -> None:
    _, bits = _normed(graph, rng)
    norm = bits.producer().inputs[0]
    model = graph.model(bits, norm)
    assert not BatchNormThreshold()(model).modified


def test_a_norm_whose_floats_are_read_too_stays_for_those(graph, rng, run, counts) -> None:
    parameters, bits = _normed(graph, rng)
    again = graph.sign(bits.producer().inputs[0])
    floats = graph.op("Neg", [bits.producer().inputs[0]], ("batch", N, 4))
    model = graph.model(bits, again, floats)
    x = (2 * rng.standard_normal((300, N, 4))).astype(np.float32)
    before = run(model, x=x)
    assert BatchNormThreshold()(model).modified
    assert counts(model) == {"BatchNormalization": 1, "Neg": 1, "Binarize": 2}
    first, second, negative = run(model, x=x)
    expected = _float64_bits(parameters, x, 0)
    np.testing.assert_array_equal(first, expected)
    np.testing.assert_array_equal(second, expected)
    np.testing.assert_array_equal(negative, before[2])


def test_non_finite_or_impossible_statistics_are_left_alone(graph, rng) -> None:
    _, bits = _normed(graph, rng, variance=np.full(N, -1.0))
    assert not BatchNormThreshold()(graph.model(bits)).modified


def test_a_zero_gain_is_constant_for_infinite_inputs_too() -> None:
    zero, one = np.zeros(2), np.ones(2)
    threshold, flip = sign_change(zero, one, one, np.array([0.5, -0.5]))
    np.testing.assert_array_equal(threshold, [-np.inf, -np.inf])
    np.testing.assert_array_equal(flip, [False, True])


_value = st.floats(-1e4, 1e4, width=32)


@settings(max_examples=200, deadline=None)
@given(
    gain=st.one_of(st.just(0.0), _value),
    mean=_value,
    deviation=st.floats(2**-20, 1e4, width=32),
    shift=_value,
    x=st.floats(width=32, allow_nan=False, allow_infinity=False),
)
def test_the_threshold_decides_as_float64_for_any_finite_input(
    gain, mean, deviation, shift, x
) -> None:
    arrays = (np.array([v], dtype=np.float64) for v in (gain, mean, deviation, shift))
    threshold, flip = sign_change(*arrays)
    value = (np.float64(x) - mean) / deviation * gain + shift
    assert bool((np.float32(x) >= threshold[0]) ^ flip[0]) == bool(value >= 0)
