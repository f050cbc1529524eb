from __future__ import annotations

import numpy as np
import pytest

from vitc.targets.kernels.attention import AttentionShape, attention_kernel
from vitc.targets.kernels.binarize import along_columns_kernel, along_rows_kernel
from vitc.targets.packing import (
    ROW_PADDING,
    Axis,
    from_lanes,
    from_rows,
    round_up,
    to_lanes,
    to_rows,
)

SPECIAL = np.array(
    [0.0, -0.0, np.float32(1e-45), -np.float32(1e-45), np.inf, -np.inf, np.finfo(np.float32).max],
    np.float32,
)


def stream(rows, columns, stride, seed=5):
    rng = np.random.default_rng(seed)
    x = np.zeros((rows, stride), np.float32)
    x[:, :columns] = rng.normal(size=(rows, columns))
    x[:, : len(SPECIAL)] = SPECIAL
    return x


@pytest.mark.parametrize("size", [(197, 384), (17, 64), (5, 40), (3, 20)])
def test_binarize_along_rows_compares_and_flips_exactly(call, size):
    rows, columns = size
    stride = round_up(columns, 32)
    x = stream(rows, columns, stride)
    rng = np.random.default_rng(6)
    threshold = x[np.arange(rows), rng.integers(0, columns, rows)]  # a tie in every row
    flip = rng.integers(0, 2, rows).astype(bool)
    kernel = along_rows_kernel("k", rows, columns, stride)
    axis = Axis(columns)
    out = call(
        kernel, [x, threshold, np.where(flip, 0xFFFF, 0).astype(np.uint16)], rows * axis.padded // 8
    )
    padded = from_rows(out, rows, Axis(axis.padded))
    expected = (x[:, :columns] >= threshold[:, None]) ^ flip[:, None]
    assert np.array_equal(padded[:, :columns], expected)
    assert not padded[:, columns:].any()


@pytest.mark.parametrize("size", [(197, 384), (5, 40), (3, 20)])
def test_binarize_along_rows_compares_with_a_threshold_a_column(call, size):
    rows, columns = size
    stride = round_up(columns, 32)
    x = stream(rows, columns, stride)
    rng = np.random.default_rng(8)
    threshold = x[rng.integers(0, rows, stride), np.arange(stride)]
    flip = rng.integers(0, 2, (1, columns), dtype=np.uint8)
    kernel = along_rows_kernel("k", rows, columns, stride, by_column=True)
    axis = Axis(columns)
    out = call(kernel, [x, threshold, to_rows(flip, axis)], rows * axis.padded // 8)
    padded = from_rows(out, rows, Axis(axis.padded))
    assert np.array_equal(padded[:, :columns], (x >= threshold)[:, :columns] ^ flip.astype(bool))
    assert not padded[:, columns:].any()


@pytest.mark.parametrize("size", [(197, 384), (17, 64), (40, 32), (64, 96)])
def test_binarize_along_columns_packs_tokens_of_each_channel(call, isa, size):
    rows, columns = size
    x = stream(rows, columns, columns)
    rng = np.random.default_rng(7)
    threshold = x[rng.integers(0, rows, columns), np.arange(columns)]
    flip = rng.integers(0, 2, columns).astype(bool)
    ones = (1 << isa.element_bits) - 1
    kernel = along_columns_kernel("k", isa, rows, columns, columns)
    axis = Axis(rows)
    out = call(
        kernel,
        [x, threshold, np.where(flip, ones, 0).astype(isa.element)],
        round_up(columns, isa.lanes) * axis.padded // 8,
    )
    padded = from_lanes(out, columns, Axis(axis.padded), isa.lanes, isa.element_bits)
    assert np.array_equal(padded[:, :rows], ((x >= threshold) ^ flip).T)
    assert not padded[:, rows:].any()


@pytest.mark.parametrize(
    ("tokens", "others", "heads", "width", "slack"),
    [
        (197, 197, 3, 64, 5),
        (17, 17, 2, 32, 3),
        (50, 50, 2, 48, 4),
        (33, 33, 1, 20, 2),
        (300, 300, 2, 96, 6),
        (16, 16, 1, 32, 3),
        (5, 70, 2, 32, 3),
        (70, 5, 2, 32, 3),
        (1, 33, 1, 20, 2),
    ],
)
def test_attention_agrees_with_plain_integers(call, isa, tokens, others, heads, width, slack):
    isa = isa.filled_by(Axis(width).padded)
    rng = np.random.default_rng(8)
    q, k, v = (
        rng.integers(0, 2, (heads, n, width), dtype=np.uint8) for n in (tokens, others, others)
    )
    # Some heads' queries are far from every key, so that padding keys would be nearest.
    q[:, ::5] = 0
    k[:, 1:] |= rng.integers(0, 2, k[:, 1:].shape, dtype=np.uint8)
    distance = (q[:, :, None] != k[:, None]).sum(-1)
    mask = distance <= distance.min(-1, keepdims=True) + slack
    integers = np.einsum("hij,hjd->hid", mask.astype(np.int64), 2 * v.astype(np.int64) - 1)
    rows = round_up(tokens, ROW_PADDING)
    threshold = rng.integers(-9, 9, rows).astype(np.int32)
    threshold[:2] = [-others - 1, others + 1]
    expected = (integers >= threshold[None, :tokens, None]).transpose(1, 0, 2).reshape(tokens, -1)

    head = Axis(width, heads)
    queries = np.zeros((rows, head.padded // 8), np.uint8)
    queries[:tokens] = to_rows(q.transpose(1, 0, 2).reshape(tokens, -1), head)
    keys = np.concatenate(
        [to_lanes(k[h], Axis(width), isa.lanes, isa.element_bits) for h in range(heads)]
    )
    values = to_lanes(
        head.pad(v.transpose(0, 2, 1).reshape(-1, others), 0),
        Axis(others),
        isa.lanes,
        isa.element_bits,
    )
    kernel = attention_kernel("k", isa, AttentionShape(tokens, others, head, slack))
    out = call(kernel, [queries, keys, values, threshold], rows * head.padded // 8)
    out = out[: tokens * head.padded // 8]
    raw = np.unpackbits(out.reshape(tokens, -1), axis=1, bitorder="little")
    assert np.array_equal(from_rows(out, tokens, head), expected)
    used = (np.arange(heads)[:, None] * head.padded_group + np.arange(width)).reshape(-1)
    assert not np.delete(raw, used, axis=1).any()
