from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitc.passes.prelu_threshold import PReluThreshold, two_sides

SLOPES = np.float32([-2, -0.5, -1e-3, -0.0, 0, 1e-3, 0.25, 1, 3])
SHIFTS = np.float32([-1.5, -0.25, -0.0, 0, 0.25, 1.5])


def _signed_prelu(graph, slope, shift, tokens):
    u = graph.input("u", ("batch", tokens, 3))
    shape = ("batch", tokens, 3)
    value = graph.op("PRelu", [u, graph.const(slope)], shape)
    if shift is not None:
        value = graph.op("Add", [value, graph.const(shift)], shape)
    return graph.sign(value)


def test_every_sign_of_slope_and_shift_gives_the_bits_of_the_prelu(graph, rng, run, counts) -> None:
    slope, shift = (g.reshape(-1, 1) for g in np.meshgrid(SLOPES, SHIFTS))
    tokens = slope.size
    model = graph.model(_signed_prelu(graph, slope, shift[None], tokens))
    ties = np.unique(np.concatenate([SHIFTS, -SHIFTS, *(-SHIFTS / s for s in SLOPES if s), [0]]))
    u = np.concatenate([ties, 3 * rng.standard_normal(61)]).astype(np.float32)
    u = np.resize(u, (len(u) // 3, 1, 3)) * np.ones((1, tokens, 1), np.float32)
    u64 = u.astype(np.float64)
    expected = np.where(u64 >= 0, u64, slope.astype(np.float64) * u64) + shift >= 0
    assert PReluThreshold()(model).modified
    assert counts(model) == {"GreaterOrEqual": 1, "LessOrEqual": 1, "Or": 1, "Cast": 1}
    np.testing.assert_array_equal(run(model, u=u)[0], expected)


def test_positive_slopes_need_one_side_only(graph, rng, run, counts) -> None:
    slope = rng.random((7, 1)).astype(np.float32)
    shift = rng.standard_normal((7, 1)).astype(np.float32)
    model = graph.model(_signed_prelu(graph, slope, shift, 7))
    u = rng.standard_normal((50, 7, 3)).astype(np.float32)
    before = run(model, u=u)[0]
    assert PReluThreshold()(model).modified
    assert counts(model) == {"Binarize": 1}
    np.testing.assert_array_equal(run(model, u=u)[0], before)


def test_a_prelu_without_a_shift_is_a_threshold_at_zero(graph, run) -> None:
    slope = np.float32([[-1], [0], [2]])
    model = graph.model(_signed_prelu(graph, slope, None, 3))
    u = np.float32([-2, -0.0, 3]) * np.ones((1, 3, 1), np.float32)
    before = run(model, u=u)[0]
    assert PReluThreshold()(model).modified
    np.testing.assert_array_equal(run(model, u=u)[0], before)
    np.testing.assert_array_equal(before[0], [[1, 1, 1], [1, 1, 1], [0, 1, 1]])


def test_a_prelu_whose_slope_is_computed_is_left_alone(graph, counts) -> None:
    u, slope = graph.input("u", ("batch", 3)), graph.input("slope", (3,))
    model = graph.model(graph.sign(graph.op("PRelu", [u, slope], ("batch", 3))))
    assert not PReluThreshold()(model).modified
    assert counts(model) == {"PRelu": 1, "Binarize": 1}


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_slope_that_is_not_finite_is_left_alone(graph, bad) -> None:
    slope = np.float32([[bad], [1], [1]])
    assert not PReluThreshold()(graph.model(_signed_prelu(graph, slope, None, 3))).modified


def test_the_second_side_is_stored_only_where_it_decides() -> None:
    slope, shift = (g.ravel().astype(np.float64) for g in np.meshgrid(SLOPES, SHIFTS))
    _, lower = two_sides(slope, shift)
    np.testing.assert_array_equal(np.isfinite(lower), (slope < 0) & (shift < 0))


_number = st.one_of(st.sampled_from([0.0, -0.0, 1.0, -1.0]), st.floats(-100, 100, width=32))


@settings(max_examples=300, deadline=None)
@given(slope=_number, shift=_number, u=_number)
def test_two_sides_hold_exactly_where_the_prelu_is_not_negative(slope, shift, u) -> None:
    upper, lower = two_sides(np.array([slope]), np.array([shift]))
    value = (u if u >= 0 else slope * u) + shift
    decided = u >= upper[0] or u <= lower[0]
    # At the crossing itself -c / a may be off by a float64 rounding.
    assert decided == (value >= 0) or abs(value) < 1e-13 * (1 + abs(shift))
