"""Thresholds free of denormals: the same bits, and none that flushing denormals could change."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitc.passes.linear_threshold import LinearThreshold
from vitc.passes.normal_range import (
    SMALLEST_NORMAL,
    LinearDecision,
    decides_alike_when_flushed,
    flushed,
    normal_bias,
    normal_threshold,
    stored_decision,
)

DENORMALS = [1e-45, -1e-45, 7e-45, -7e-45, 1e-39, -1e-39, 1.1e-38, -1.1e-38]
NORMAL = [0.0, -0.0, 1e-20, -1e-20, 1e30, -1e30, 1.0, -0.25]
SPECIAL = [*DENORMALS, *NORMAL, 2.0**-126, -(2.0**-126), 1e-33, -1e-33]
seeds = st.integers(0, 2**32 - 1).map(np.random.default_rng)


def numbers(rng, shape, share, among=SPECIAL):
    values = rng.standard_normal(shape)
    special = rng.choice(np.float32(among), shape).astype(np.float64)
    return np.where(rng.random(shape) < share, special, values)


def is_denormal(values):
    values = np.asarray(values, np.float32)
    return (values != 0) & (np.abs(values) < SMALLEST_NORMAL)


def bits(decision, integers):
    """The dialect's expression, [integers, N, O]."""
    groups = len(decision.scale) // decision.upper.shape[1]
    product = np.float32(integers)[:, None, None] * decision.scale
    bounds = (decision.upper, decision.lower)
    sums = [decision.offset + np.repeat(bound, groups, axis=1) for bound in bounds]
    return (product >= sums[0]) | (product <= sums[1])


def flushed_bits(decision, integers):
    """The same where operands and results are flushed, as 32-bit NEON does."""
    groups = len(decision.scale) // decision.upper.shape[1]
    scale, offset = flushed(decision.scale), flushed(decision.offset)
    product = flushed(np.float32(integers)[:, None, None] * scale)
    sums = [
        flushed(offset + np.repeat(flushed(b), groups, axis=1))
        for b in (decision.upper, decision.lower)
    ]
    return (product >= sums[0]) | (product <= sums[1])


@pytest.mark.parametrize("threshold", [*SPECIAL, np.inf, -np.inf])
def test_a_moved_threshold_decides_every_zero_and_normal_number_as_before(threshold) -> None:
    threshold = np.float32(threshold)
    moved = normal_threshold(threshold)
    edge = np.float32(SMALLEST_NORMAL)
    x = np.concatenate([SPECIAL, [edge, -edge, np.nextafter(edge, np.float32(1))], [threshold]])
    x = x[~is_denormal(x)].astype(np.float32)
    assert not is_denormal(moved)
    np.testing.assert_array_equal(x >= moved, x >= threshold)
    np.testing.assert_array_equal(flushed(x) >= flushed(moved), x >= threshold)


@settings(max_examples=150, deadline=None)
@given(seeds, st.integers(1, 40), st.sampled_from([0.05, 0.5, 1.0]))
def test_rounded_constants_decide_every_integer_alike_with_and_without_denormals(
    rng, k, share
) -> None:
    rows, groups, tokens = 12, int(rng.choice([1, 3])), 5
    scale = np.abs(numbers(rng, rows, rng.choice([0, share]))).clip(max=1e30).astype(np.float32)
    offset, upper = numbers(rng, rows, share), numbers(rng, (tokens, groups), share)
    lower = np.where(rng.random(upper.shape) < 0.5, -np.inf, upper - np.abs(upper))
    decision = stored_decision(scale, offset, upper, lower, k)
    integers = np.arange(-k, k + 1, 2)
    plain = LinearDecision(scale, *(a.astype(np.float32) for a in (offset, upper, lower)))
    np.testing.assert_array_equal(bits(decision, integers), bits(plain, integers))
    # The other way it may be cautious: each side is judged alone, and either gives the bit.
    if decides_alike_when_flushed(decision, k):
        np.testing.assert_array_equal(flushed_bits(decision, integers), bits(decision, integers))


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(1, 40))
def test_shifts_and_scales_that_are_denormal_leave_no_denormal(rng, k) -> None:
    among = [*DENORMALS, *NORMAL]
    scale = np.abs(numbers(rng, 12, 0.3, among)).clip(max=1.0).astype(np.float32)
    offset, upper = numbers(rng, 12, 0.6, among), numbers(rng, (5, 1), 0.9, among)
    lower = np.where(upper > 0, -upper, -np.inf)
    decision = stored_decision(scale, offset, upper, lower, k)
    kept = (decision.scale, decision.offset, decision.upper, decision.lower)
    assert not any(is_denormal(array).any() for array in kept)
    assert decides_alike_when_flushed(decision, k)


def test_constants_of_trained_size_are_rounded_to_nearest(rng) -> None:
    scale = rng.random(12).astype(np.float32)
    offset, upper = rng.standard_normal(12), rng.standard_normal((5, 3))
    decision = stored_decision(scale, offset, upper, upper - 1, 17)
    np.testing.assert_array_equal(decision.scale, scale)
    np.testing.assert_array_equal(decision.offset, offset.astype(np.float32))
    np.testing.assert_array_equal(decision.upper, upper.astype(np.float32))
    np.testing.assert_array_equal(decision.lower, (upper - 1).astype(np.float32))


def test_a_lower_side_just_below_zero_does_not_hold_at_zero() -> None:
    # -c / a of a steep slope: rounded to nearest it is zero, which an even sum meets.
    one = np.ones(1, np.float32)
    never = np.full((1, 1), np.inf)
    decision = stored_decision(one, np.zeros(1), never, np.full((1, 1), -7e-75), 4)
    np.testing.assert_array_equal(bits(decision, [-2, 0, 2]).ravel(), [True, False, False])
    assert decides_alike_when_flushed(decision, 4)


def test_signs_of_sums_of_denormals_are_kept_even_if_denormals_stay() -> None:
    # 2^24 times 4e-39 is more than 3e-33, and 1e-39 must not count as zero.
    offset, upper = np.array([4e-39, 0]), np.array([[-3e-33], [1e-39]])
    decision = stored_decision(np.ones(2, np.float32), offset, upper, np.full((2, 1), -np.inf), 2)
    np.testing.assert_array_equal(bits(decision, [0])[0], [[True, True], [False, False]])
    assert not decides_alike_when_flushed(decision, 2)


def test_a_scale_whose_products_overflow_is_left_alone(graph, rng) -> None:
    import onnx_ir as ir

    x = graph.input("x", ("batch", 3, 1), dtype=ir.DataType.UINT8)
    weight = rng.integers(0, 256, (4, 1), dtype=np.uint8)
    value = graph.op("BinaryLinear", [x, graph.const(weight)], ("batch", 3, 4), "INT32", k=8)
    value = graph.op("Cast", [value], ("batch", 3, 4), to=1)
    scale = np.float32([1, 1, 3e37, 1])
    value = graph.op("Mul", [value, graph.const(scale)], ("batch", 3, 4))
    assert not LinearThreshold()(graph.model(graph.sign(value))).modified


def mask(scores, bias, cut, flush=lambda values: values):
    """The dialect's BiasedBestMask; `flush` is done to operands and results."""
    biased = flush(np.float32(scores) + flush(bias))
    least = flush(biased.max(-1, keepdims=True) - np.float32(cut))
    return biased >= least


@settings(max_examples=200, deadline=None)
@given(seeds, st.sampled_from([2.0**-100, 1e-20, 1.0, 3.75, 12.0]))
def test_normal_biases_decide_every_score_as_before_flushed_or_not(rng, cut) -> None:
    scores = rng.integers(-2, 3, (40, 6)) * rng.choice([1, 4, 6])
    bias = numbers(rng, scores.shape, 0.6, [*SPECIAL, cut, -cut, np.inf, -np.inf])
    bias = bias.astype(np.float32)
    bias[:, 0] = np.float32(rng.choice([*DENORMALS, 0.0, cut]))
    moved = normal_bias(bias)
    assert not is_denormal(moved).any()
    wanted = mask(scores, bias, cut)
    np.testing.assert_array_equal(mask(scores, moved, cut), wanted)
    np.testing.assert_array_equal(mask(scores, moved, cut, flushed), wanted)
