"""The softmax of every length = float64, on this machine's targets."""

from __future__ import annotations

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.processors import HOST
from tests.properties import conftest as shared
from tests.properties import numbers
from vitc.targets.isa import ISAS
from vitc.targets.kernels.softmax import SoftmaxShape, softmax_kernel
from vitc.targets.packing import round_up
from vitc.targets.table import TARGETS

targets = st.sampled_from(HOST).map(TARGETS.__getitem__)


@shared.examples(8)
@given(
    numbers.rngs(),
    targets,
    st.integers(1, 12),
    st.integers(4, 210),
    st.sampled_from([0.1, 3.0, 60.0]),
    st.booleans(),
)
def test_softmax(call, rng, target, rows, length, spread, plain):
    isa = ISAS[target.isa]
    assume(length >= isa.float_lanes)
    stride = length if plain else round_up(length, 32)
    distance = round_up(length, 8)
    x = rng.normal(5, spread, (rows, distance)).astype(np.float32)
    x[rng.random(x.shape) < 0.1] = -np.inf  # as a mask excludes
    x[:, rng.integers(length)] = x.max()  # a tie, behind which another place may lie
    x[:, length:] = np.inf  # read by no row
    read = x[:, :length].astype(np.float64)
    apart = read - read.max(1, keepdims=True)
    powers = np.exp(apart)
    wanted = powers / powers.sum(1, keepdims=True)

    shape = SoftmaxShape(rows, length, distance, stride)
    out = call(target, softmax_kernel("k", isa, shape), [x], rows * stride * 4)
    found = out.view(np.float32).reshape(rows, stride)
    eps = 2.0**-24
    # A difference is rounded, and so is its product with log2(e); a sum of `length`; 2^f and 1/sum.
    limit = wanted * eps * (4 * np.abs(apart).clip(max=128) + length + 12) + 2.0**-125
    assert np.all(np.abs(found[:, :length] - wanted) <= limit)
    assert not found[:, length:].any()


def test_a_row_of_numbers_that_are_none_is_none(call):
    x = np.full((1, 16), np.nan, np.float32)
    target = TARGETS[HOST[0]]
    kernel = softmax_kernel("k", ISAS[target.isa], SoftmaxShape(1, 16, 16, 16))
    assert np.isnan(call(target, kernel, [x], 64).view(np.float32)).all()
