"""The product of bytes and integers of every shape = numpy, to the bit, on this machine's targets.

Those of ARM are compiled and run under qemu (`tests/compiler/test_byte_embedding.py`).
"""

from __future__ import annotations

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.processors import HOST
from tests.properties import conftest as shared
from tests.properties import numbers
from vitc.targets.isa import ISAS
from vitc.targets.kernels.byte_linear import (
    ByteLinearShape,
    byte_linear_kernel,
    made_up,
    tiled_weight,
)
from vitc.targets.kernels.float_linear import blocks_of
from vitc.targets.packing import round_up
from vitc.targets.table import TARGETS

targets = st.sampled_from(HOST).map(TARGETS.__getitem__)


def padded(vectors: np.ndarray, size: int) -> np.ndarray:
    whole = np.zeros((*vectors.shape[:-1], size), np.float32)
    whole[..., : vectors.shape[-1]] = vectors
    return whole


@shared.examples(16)
@given(
    numbers.rngs(),
    targets,
    st.one_of(st.integers(1, 40), st.integers(190, 200)),
    st.integers(1, 150),
    st.integers(1, 50),
    st.one_of(st.integers(1, 40), st.sampled_from([256, 700])),
    st.sampled_from([1, 2]),
    st.sampled_from(["random", "largest", "alternating"]),
    st.sampled_from([(0, False), (2, False), (0, True), (1, True)]),
    st.booleans(),
    st.booleans(),
)
def test_byte_linear(
    call, rng, target, rows, outputs, runs, length, digits, kind, added, alike, shifted
):
    isa, (prefix, by_row) = ISAS[target.isa], added
    shifted = shifted or bool(isa.dot_less)
    runs = 1 if length > 100 else runs
    stride, depth = round_up(outputs, 32), runs * length
    shape = ByteLinearShape(
        rows, outputs, runs, length, digits, stride, prefix, by_row, shifted, alike
    )
    x = rng.integers(0, 256, 4 * depth + rows + 50).astype(np.uint8)
    weight = rng.integers(-128, 128, (digits, outputs, depth)).astype(np.int8)
    if digits > 1:
        weight[1] &= 127  # as the exporter writes it, but the highest digit may be -128
    if kind != "random":
        x[:] = 255
        weight[0] = -128 if kind == "largest" else np.where(np.arange(depth) % 2, 127, -128)
    corners = rng.integers(0, x.size - 2 * depth + 1, rows).astype(np.int32)
    places = rng.integers(0, depth - length + 1, runs).astype(np.int32)
    scale, bias = (rng.standard_normal(outputs).astype(np.float32) for _ in range(2))
    scale[::5], bias[::7] = 0, 0
    start = rng.standard_normal((prefix + rows if by_row else prefix, outputs)).astype(np.float32)

    if not alike:
        corners *= 0
        places = rng.integers(0, x.size - length + 1, (rows, runs)).astype(np.int32)
    read = x[corners[:, None, None] + places[..., None] + np.arange(length)].reshape(rows, -1)
    whole = np.zeros((outputs, depth), np.int64)
    for each in weight:
        whole = 128 * whole + each
    shift = rng.integers(-(1 << 20), 1 << 20, outputs).astype(np.int32) * shifted
    exact = read.astype(np.int64) @ whole.T + shift
    assume(np.abs(exact).max() < 2**31)
    wanted = exact.astype(np.int32).astype(np.float32) * scale + bias
    if by_row:
        wanted = wanted + start[prefix:]

    _, widths = blocks_of(isa, rows, outputs)
    tables = [corners, places] if alike else [places]
    operands = [x, *tables, tiled_weight(isa, shape, weight)]
    shift += made_up(isa, weight)
    operands += [padded(shift, sum(widths)).astype(np.int32)] if shifted else []
    operands += [padded(scale, sum(widths)), padded(bias, sum(widths))]
    operands += [padded(start, stride)] if by_row or prefix else []
    kernel = byte_linear_kernel("k", isa, shape)
    out = call(target, kernel, operands, (prefix + rows) * stride * 4)
    found = out.view(np.float32).reshape(-1, stride)
    assert np.array_equal(found[:prefix, :outputs], start[:prefix])
    assert np.array_equal(found[prefix:, :outputs], wanted)
    assert not found[:, outputs:].any()
