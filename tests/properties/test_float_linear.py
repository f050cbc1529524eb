"""The fp32 product of every shape, read in every way = numpy, on this machine's targets."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.processors import HOST
from tests.properties import conftest as shared
from tests.properties import numbers
from vitc.targets.isa import ISAS
from vitc.targets.kernels.float_linear import FloatLinearShape, blocks_of, float_linear_kernel
from vitc.targets.packing import round_up
from vitc.targets.table import TARGETS

targets = st.sampled_from(HOST).map(TARGETS.__getitem__)


def tables(rng, shape: FloatLinearShape, size: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Tables of a kernel, and the place of each run [rows, runs]; -1 is padding."""
    rows, runs, most = shape.rows, shape.runs, size - shape.length
    if shape.reads == "rows":
        return [], np.arange(rows)[:, None] * shape.distance
    if shape.reads == "corners":
        corners = rng.integers(0, most // 2 + 1, rows)
        places = rng.integers(0, most // 2 + 1, runs)
        return [corners.astype(np.int32), places.astype(np.int32)], corners[:, None] + places
    table = rng.integers(0, most + 1, (runs, rows))
    if shape.reads == "table":
        return [table.astype(np.int32)], table.T
    table[rng.random(table.shape) < 0.3] = -1
    return [table.astype(np.int32), np.zeros(shape.length, np.float32)], table.T


@shared.examples(12)
@given(
    numbers.rngs(),
    targets,
    st.one_of(st.integers(1, 40), st.integers(127, 140)),
    st.integers(1, 150),
    st.integers(1, 5),
    st.one_of(st.integers(1, 70), st.integers(257, 800)),
    st.sampled_from(["rows", "corners", "table", "padded"]),
    st.booleans(),
    st.sampled_from([None, 0, 2]),
)
def test_float_linear(call, rng, target, rows, outputs, runs, length, reads, relu, prefix):
    isa = ISAS[target.isa]
    runs = 1 if reads == "rows" else runs
    distance, stride = length + int(rng.integers(0, 9)), round_up(outputs, 32)
    by_row, before = prefix is not None, prefix or 0
    shape = FloatLinearShape(
        rows, outputs, runs, length, reads, distance, stride, relu, before, by_row
    )
    x = rng.standard_normal(rows * distance + 2 * length).astype(np.float32)
    given_tables, places = tables(rng, shape, x.size)
    weight = rng.standard_normal((outputs, runs * length)).astype(np.float32)
    bias = rng.standard_normal((before + rows if by_row else 1, outputs)).astype(np.float32)
    read = np.where(places[..., None] < 0, 0, x[places[..., None] + np.arange(length)])
    exact = read.reshape(rows, -1).astype(np.float64) @ weight.T.astype(np.float64)
    exact += bias[before:]
    wanted = np.maximum(exact, 0) if relu else exact

    height, widths = blocks_of(isa, rows, outputs)
    assert height <= rows
    padded = np.zeros((sum(widths), runs * length), np.float32)
    padded[:outputs] = weight
    blocks = np.split(padded, np.cumsum(widths)[:-1])
    added = np.zeros((len(bias), stride if by_row else sum(widths)), np.float32)
    added[:, :outputs] = bias
    packed = np.concatenate([block.T.reshape(-1) for block in blocks])
    kernel = float_linear_kernel("k", isa, shape)
    operands = [x, *given_tables, packed, added]
    size = (before + rows) * stride * 4
    out = call(target, kernel, operands, size).view(np.float32).reshape(-1, stride)
    assert np.array_equal(out[:before, :outputs], bias[:before])
    assert not out[:, outputs:].any()
    # Each sum of products is rounded as often as it has products, and once for the bias.
    scale = np.abs(read).reshape(rows, -1) @ np.abs(weight.T) + np.abs(bias[before:])
    bound = (runs * length + 2) * np.finfo(np.float32).eps / 2 * scale
    assert np.all(np.abs(out[before:, :outputs] - wanted) <= bound)
