"""exp, erf, tanh and sigmoid of fp32 vectors against float64."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vitc.targets.kernels.emitter import Emitter
from vitc.targets.kernels.polynomials import POLYNOMIALS

EXACT = {
    "erf": np.vectorize(math.erf),
    "exp": np.exp,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
}
ENDS = {"exp": (-87.33, 88.72), "erf": (-6.0, 6.0), "tanh": (-12.0, 12.0), "sigmoid": (-80.0, 80.0)}
"""Of exp: results are normal numbers."""
ULPS = 8
"""Of the result, or of 1 for what is between -1 and 1: five more operations than a library has."""


def kernel(name: str, count: int, lanes: int):
    emitter = Emitter(f"apply_{name}_{lanes}")
    with emitter.open() as e:
        x, out = e.pointers(x="float32", out="float32")
        with e.loop(e.begin, e.end) as task:
            values = e.let(e.load(x, task * lanes, lanes))
            e.store(out, task * lanes, POLYNOMIALS[name](e, values, lanes), lanes)
    return emitter.kernel(count // lanes)


@pytest.mark.parametrize("lanes", [1, 5, 8])
@pytest.mark.parametrize("name", POLYNOMIALS)
def test_a_polynomial_is_near_the_function(call, name, lanes):
    low, high = ENDS[name]
    special = [0.0, -0.0, 1e-30, -1e-30, 1e-4, low, high]
    x = np.concatenate([special, np.linspace(low, high, 4033)]).astype(np.float32)
    x = x[: len(x) // lanes * lanes]
    found = call(kernel(name, len(x), lanes), [x], x.nbytes).view(np.float32)
    wanted = EXACT[name](x.astype(np.float64))
    scale = np.abs(wanted) if name == "exp" else np.ones(len(x))
    assert np.max(np.abs(found - wanted) / scale) < ULPS * np.finfo(np.float32).eps / 2


@pytest.mark.parametrize("lanes", [1, 8])
@pytest.mark.parametrize("name", POLYNOMIALS)
def test_beyond_its_ends_a_polynomial_is_its_limit(call, name, lanes):
    x = np.array([-np.inf, -1e30, -200.0, -105.0, 89.0, 200.0, 1e30, np.inf], np.float32)
    found = call(kernel(name, 8, lanes), [x], x.nbytes).view(np.float32)
    with np.errstate(over="ignore"):
        wanted = EXACT[name](x.astype(np.float64)).astype(np.float32)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=0 if name == "exp" else 1e-6)


@pytest.mark.parametrize("lanes", [1, 8])
@pytest.mark.parametrize("name", POLYNOMIALS)
def test_of_no_number_a_polynomial_is_none(call, name, lanes):
    x = np.array([np.nan, -1.0, -np.nan, 0.5, 2.0, np.nan, 0.0, np.nan], np.float32)
    found = call(kernel(name, 8, lanes), [x], x.nbytes).view(np.float32)
    assert np.array_equal(np.isnan(found), np.isnan(x))


def test_exp_of_what_gives_a_denormal_is_no_further_from_it_than_zero_is(call):
    x = np.linspace(-104.0, -87.34, 64).astype(np.float32)
    found = call(kernel("exp", 64, 8), [x], x.nbytes).view(np.float32)
    wanted = np.exp(x.astype(np.float64))
    step = np.finfo(np.float32).smallest_subnormal
    kept = np.abs(found - wanted) <= step + ULPS * np.finfo(np.float32).eps * wanted
    assert np.all(kept | (found == 0))
