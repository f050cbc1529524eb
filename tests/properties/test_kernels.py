"""Each kernel of this machine's targets = the numpy reference of the dialect, bit for bit."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.processors import HOST
from tests.properties import conftest as shared
from tests.properties import numbers
from vitc.dialect import evaluate
from vitc.dialect.packing import pack_bits
from vitc.targets.isa import ISAS
from vitc.targets.kernels.attention import AttentionShape, attention_kernel
from vitc.targets.kernels.binarize import along_columns_kernel, along_rows_kernel
from vitc.targets.kernels.binary_linear import (
    LinearShape,
    scale_factor,
    threshold_kernel,
    uses_tiles,
)
from vitc.targets.kernels.signs import signs_kernel
from vitc.targets.layouts import Signs
from vitc.targets.packing import (
    ROW_PADDING,
    Axis,
    from_lanes,
    from_rows,
    round_up,
    to_lanes,
    to_rows,
)
from vitc.targets.table import TARGETS

targets = st.sampled_from(HOST).map(TARGETS.__getitem__)


def bits(rng, *shape):
    return rng.integers(0, 2, shape, dtype=np.uint8)


@shared.examples(8)
@given(
    numbers.rngs(),
    targets,
    st.integers(1, 70),
    st.integers(1, 300),
    st.integers(1, 3),
    st.integers(1, 40),
    st.booleans(),
    st.sampled_from(["rows", "columns"]),
)
def test_threshold(call, rng, target, positions, k, groups, width, two_sided, output):
    isa, group, axis = ISAS[target.isa], Axis(width, groups), Axis(k)
    x, weight = bits(rng, positions, k), bits(rng, group.length, k)
    scale, offset = (numbers.arrays_of(rng, (group.length,)) for _ in range(2))
    # Lowering refuses a scale whose products are beyond fp32.
    scale = np.clip(scale, -1.5e38 / k, 1.5e38 / k).astype(np.float32)
    upper = numbers.arrays_of(rng, (positions, groups), np.inf)
    lower = numbers.arrays_of(rng, (positions, groups), -np.inf)
    if not two_sided:
        lower[...] = -np.inf
    with np.errstate(over="ignore", invalid="ignore"):
        wanted = evaluate(
            "BinaryLinearThreshold",
            (pack_bits(x), pack_bits(weight), scale, offset, upper, lower),
            {"k": k},
        )
    rows = np.zeros((round_up(positions, ROW_PADDING), axis.padded // 8), np.uint8)
    rows[:positions] = to_rows(x, axis)

    def per_position(values):
        padded = np.zeros((groups, len(rows)), np.float32)
        padded[:, :positions] = values.T
        return padded

    elements = axis.padded // isa.element_bits
    factored = scale_factor(isa, elements) * scale
    broadcast = rows
    if uses_tiles(isa, elements):
        kernel = signs_kernel("s", positions, axis)
        broadcast = call(target, kernel, [rows], Signs(positions, axis).size)
    operands = [
        broadcast,
        to_lanes(group.pad(weight, 0), axis, isa.lanes, isa.element_bits),
        group.pad(factored, 0, np.nan),
        group.pad(offset, 0, 0),
        per_position(upper),
    ]
    if two_sided:
        operands.append(per_position(lower))
    shape = LinearShape(positions, group.padded, k, elements)
    kernel = threshold_kernel("k", isa, shape, output=output, two_sided=two_sided, group=group)
    if output == "rows":
        out = call(target, kernel, operands, len(rows) * group.padded // 8)
        assert np.array_equal(from_rows(out, positions, group), wanted)
    else:
        tokens = Axis(positions)
        out = call(target, kernel, operands, group.padded * tokens.padded // 8)
        lanes = from_lanes(out, group.padded, tokens, isa.lanes, isa.element_bits)
        assert np.array_equal(group.unpad(lanes, 0).T, wanted)


@shared.examples(8)
@given(
    numbers.rngs(),
    targets,
    st.integers(1, 80),
    st.integers(1, 80),
    st.integers(1, 3),
    st.integers(1, 100),
    st.integers(0, 9),
)
def test_attention(call, rng, target, tokens, others, heads, width, slack):
    head = Axis(width, heads)
    isa = ISAS[target.isa].filled_by(head.padded_group)
    # Skewed bits make far and equal neighbours; random ones alone are all at half the width.
    q, k, v = (
        (rng.random((heads, n, width)) < rng.random((heads, n, 1))).astype(np.uint8)
        for n in (tokens, others, others)
    )
    scores = evaluate("BinaryScores", (pack_bits(q), pack_bits(k)), {"k": width})
    mask = evaluate("RowBestMask", (scores,), {"slack": slack})
    by_token = pack_bits(v.transpose(0, 2, 1))
    sums = evaluate("MaskSignMatMul", (pack_bits(mask), by_token), {"k": others})
    rows = round_up(tokens, ROW_PADDING)
    limit = rng.integers(-9, 10, rows).astype(np.int32)
    limit[rng.random(rows) < 0.1] = rng.choice([-others - 1, others + 1])
    wanted = evaluate("IntegerThreshold", (sums, limit[:tokens, None]), {}).transpose(1, 0, 2)

    queries = np.zeros((rows, head.padded // 8), np.uint8)
    queries[:tokens] = to_rows(q.transpose(1, 0, 2).reshape(tokens, -1), head)
    keys = np.concatenate([to_lanes(h, Axis(width), isa.lanes, isa.element_bits) for h in k])
    values = to_lanes(
        head.pad(v.transpose(0, 2, 1).reshape(-1, others), 0),
        Axis(others),
        isa.lanes,
        isa.element_bits,
    )
    kernel = attention_kernel("k", isa, AttentionShape(tokens, others, head, slack))
    out = call(target, kernel, [queries, keys, values, limit], rows * head.padded // 8)
    assert np.array_equal(from_rows(out, tokens, head), wanted.reshape(tokens, -1))


@shared.examples(6)
@given(numbers.rngs(), targets, st.integers(1, 70), st.integers(1, 70), st.booleans())
def test_binarize(call, rng, target, tokens, width, along_columns):
    isa, stride = ISAS[target.isa], round_up(width, 32)
    x = np.zeros((tokens, stride), np.float32)
    x[:, :width] = numbers.arrays_of(rng, (tokens, width))
    count = width if along_columns else tokens
    limit = numbers.arrays_of(rng, (count,), np.inf)
    tied = x[rng.integers(0, tokens, count), np.arange(count)] if along_columns else x[:, 0]
    limit = np.where(rng.random(count) < 0.5, tied, limit).astype(np.float32)
    flip = bits(rng, count).astype(bool)
    view = (1, -1) if along_columns else (-1, 1)
    wanted = evaluate("Binarize", (x[:, :width], limit.reshape(view), flip.reshape(view)), {})
    if along_columns:
        ones = (1 << isa.element_bits) - 1
        kernel = along_columns_kernel("k", isa, tokens, stride, stride)
        limits, flips = np.zeros(stride, np.float32), np.zeros(stride, isa.element)
        limits[:width], flips[:width] = limit, np.where(flip, ones, 0)
        out = call(target, kernel, [x, limits, flips], stride * Axis(tokens).padded // 8)
        found = from_lanes(out, stride, Axis(tokens), isa.lanes, isa.element_bits)[:width].T
    else:
        kernel = along_rows_kernel("k", tokens, width, stride)
        flips = np.where(flip, 0xFFFF, 0).astype(np.uint16)
        out = call(target, kernel, [x, limit, flips], tokens * Axis(width).padded // 8)
        found = from_rows(out, tokens, Axis(width))
    assert np.array_equal(found, wanted)
