"""Summands of thresholds of integers, where numbers below 2^-126 count as zero."""

from __future__ import annotations

import numpy as np
import pytest

from vitc.passes.normal_range import (
    flushed,
    normal_summands,
    summands_decide_alike_when_flushed,
)

TINY = 2.0**-126


def decided(one, other) -> np.ndarray:
    integers = np.arange(-4, 5, dtype=np.float32)
    with np.errstate(over="ignore"):
        return integers >= (one[:, None] + other)[..., None]


SPECIAL = [0, -0.0, 1e-45, -1e-45, 3e-39, -3e-39, TINY, -TINY, 1e-30, 1, -1, 2.5, 3e38]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (SPECIAL, [0, 1e-30, 1, -1, 2.5]),
        ([0, 1e-45, 3e-39, TINY, -TINY, 1], [1e-45, 3]),
        ([1e-45, -1e-45, 3e-39, 1], [-1e-45, 1e-45, -3e-39, 0]),
    ],
)
def test_summands_of_denormals_decide_alike_without_them(one, other) -> None:
    one, other = np.array(one, np.float32), np.array(other, np.float32)
    first, second = normal_summands(one, other)
    assert np.array_equal(decided(first, second), decided(one, other))
    sums = first[:, None] + second
    for values in (first, second, sums):
        assert np.array_equal(flushed(values), values)
    assert summands_decide_alike_when_flushed(one, other)


def test_summands_that_need_denormals_stay_and_are_known() -> None:
    one = np.array([2.0**-140, 2.0**-134], np.float32)
    other = np.array([-(2.0**-140), -(2.0**-135), -(2.0**-120)], np.float32)
    assert all(map(np.array_equal, normal_summands(one, other), (one, other)))
    assert not summands_decide_alike_when_flushed(one, other)
