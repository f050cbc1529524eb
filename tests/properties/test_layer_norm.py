"""The layer norm of every shape, read in every order = numpy, on this machine's targets."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.processors import HOST
from tests.properties import conftest as shared
from tests.properties import numbers
from vitc.targets.isa import ISAS
from vitc.targets.kernels.layer_norm import LayerNormShape, layer_norm_kernel
from vitc.targets.packing import round_up
from vitc.targets.table import TARGETS

targets = st.sampled_from(HOST).map(TARGETS.__getitem__)


@shared.examples(8)
@given(
    numbers.rngs(),
    targets,
    st.integers(1, 20),
    st.integers(1, 4),
    st.integers(1, 150),
    st.booleans(),
)
def test_layer_norm(call, rng, target, rows, runs, length, ordered):
    runs = runs if ordered else 1
    channels, stride = runs * length, round_up(runs * length, 32)
    distance = None if ordered else round_up(length, 8)
    x = rng.normal(3, 2, rows * round_up(channels, 8)).astype(np.float32)
    places = np.arange(rows)[:, None] * (distance or 0)
    if ordered:
        places = rng.integers(0, x.size - length + 1, (rows, runs))
    gain, bias = (rng.standard_normal(channels).astype(np.float32) for _ in range(2))
    read = x[places[..., None] + np.arange(length)].reshape(rows, -1).astype(np.float64)
    apart = read - read.mean(1, keepdims=True)
    spread = np.sqrt((apart**2).mean(1, keepdims=True) + 1e-5)
    wanted = apart / spread * gain + bias

    shape = LayerNormShape(rows, runs, length, distance, stride, 1e-5)
    kernel = layer_norm_kernel("k", ISAS[target.isa], shape)
    tables = [places.astype(np.int32)] if ordered else []
    out = call(target, kernel, [x, *tables, gain, bias], rows * stride * 4)
    found = out.view(np.float32).reshape(rows, stride)
    # A mean of `channels` summands, and two ends of a difference, which the spread divides.
    eps = np.finfo(np.float32).eps
    size = np.abs(read).max() / spread * (channels + 4) + np.abs(apart / spread) * (channels + 8)
    assert np.all(np.abs(found[:, :channels] - wanted) <= eps * (size * np.abs(gain) + 4))
    assert not found[:, channels:].any()
