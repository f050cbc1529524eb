"""Codes of every shape = numpy, to the bit, on this machine's targets and under qemu."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.processors import HOST
from tests.properties import conftest as shared
from tests.properties import numbers
from vitc.targets.isa import ISAS
from vitc.targets.kernels.quantize import QuantizeShape, quantize_kernel
from vitc.targets.table import TARGETS

targets = st.sampled_from(HOST).map(TARGETS.__getitem__)


def codes(x: np.ndarray, scale: float, zero: int) -> np.ndarray:
    whole = np.rint(x / np.float32(scale)) + zero
    return np.clip(whole, 0, 255).astype(np.uint8)


@shared.examples(40)
@given(
    numbers.rngs(),
    targets,
    st.integers(1, 30),
    st.one_of(st.integers(1, 70), st.sampled_from([96, 224, 513])),
    st.integers(0, 40),
    st.sampled_from([0, 1, 127, 128, 254, 255]),
    st.sampled_from([1.0, 0.5, 0.1, 3e-7, 7e5]),
    st.sampled_from(["random", "ties", "far"]),
)
def test_quantize(call, rng, target, rows, columns, gap, zero, scale, kind):
    scale = float(np.float32(scale))
    x = rng.standard_normal((rows, columns + gap)).astype(np.float32) * np.float32(90 * scale)
    if kind == "ties":
        x = ((rng.integers(-300, 300, x.shape) + 0.5) * scale).astype(np.float32)
    if kind == "far":
        x[rng.random(x.shape) < 0.3] = 3e38
        x[rng.random(x.shape) < 0.3] = -np.inf
        x[rng.random(x.shape) < 0.3] = -0.0
    shape = QuantizeShape(rows, columns, columns + gap, scale, zero)
    out = call(target, quantize_kernel("k", ISAS[target.isa], shape), [x], rows * columns)
    with np.errstate(over="ignore"):
        wanted = codes(x[:, :columns], scale, zero)
    assert np.array_equal(out.view(np.uint8).reshape(rows, columns), wanted)


@pytest.mark.parametrize("zero", [0, 200])
def test_every_code_is_reached(call, zero):
    target = TARGETS[HOST[0]]
    x = np.arange(256, dtype=np.float32)[None] - zero
    shape = QuantizeShape(1, 256, 256, 1.0, zero)
    out = call(target, quantize_kernel("k", ISAS[target.isa], shape), [x], 256)
    assert np.array_equal(out.view(np.uint8), np.arange(256))
