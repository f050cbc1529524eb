from __future__ import annotations

import numpy as np
import pytest
import torch

from vitc.models.taps import TapEvent
from vitc.verify.bounds import rounding_bound, roundings


def test_a_short_sum_keeps_the_worst_case() -> None:
    assert roundings(4) == 4
    assert roundings(36) == 36


def test_a_long_sum_grows_with_the_root_of_its_terms() -> None:
    assert roundings(40_000) == pytest.approx(10 * roundings(400))


def test_an_exact_value_has_no_bound() -> None:
    event = TapEvent("x", "int", torch.zeros(2))

    assert rounding_bound(event) is None


@pytest.mark.parametrize("terms", [3, 64, 768, 3072])
def test_fp32_sums_of_random_products_stay_within_the_bound_and_not_far_below(terms: int) -> None:
    rng = np.random.default_rng(terms)
    a, b = rng.standard_normal((2, 2000, terms)).astype(np.float32)
    exact = (a.astype(np.float64) * b).sum(axis=1)
    # One product after the other: the order with the largest error of all that are used.
    single = np.zeros(2000, np.float32)
    for column in range(terms):
        single = single + a[:, column] * b[:, column]
    magnitude = torch.from_numpy(np.abs(a.astype(np.float64) * b).sum(axis=1))
    event = TapEvent("x", "float", torch.from_numpy(exact), None, lambda: magnitude, terms + 1)

    bound = rounding_bound(event)

    assert bound is not None
    ratio = np.abs(single - exact) / bound.numpy()
    assert ratio.max() < 1
    assert ratio.max() > 0.005
