from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from vitc.models import ops


def bits(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


def signs(values: Tensor) -> np.ndarray[Any, Any]:
    return values.numpy().astype(np.int64) * 2 - 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_binarize_counts_both_zeros_as_plus_one(dtype: torch.dtype) -> None:
    x = torch.tensor([-1.0, -0.0, 0.0, 1e-30, -1e-30], dtype=dtype)
    got = ops.binarize(x)
    assert got.dtype == torch.uint8
    assert got.tolist() == [0, 1, 1, 1, 0]


@pytest.mark.parametrize("k", [1, 7, 8, 197])
def test_binary_linear_is_the_exact_integer_sign_product(k: int) -> None:
    x, w = bits(2, 3, k, seed=k), bits(5, k, seed=k + 1)
    got = ops.binary_linear(x, w)
    assert got.dtype == torch.int32
    np.testing.assert_array_equal(got.numpy(), signs(x) @ signs(w).T)
    xor = (x[:, :, None, :] ^ w).sum(-1, dtype=torch.int32)
    assert torch.equal(got, k - 2 * xor)


def test_binary_linear_stays_exact_at_the_longest_row_of_any_preset() -> None:
    x = torch.ones(1, 4096, dtype=torch.uint8)
    w = torch.ones(2, 4096, dtype=torch.uint8)
    w[1, 0] = 0
    assert ops.binary_linear(x, w).tolist() == [[4096, 4094]]


def test_binary_scores_are_the_exact_integer_products() -> None:
    q, k = bits(2, 3, 9, 13, seed=1), bits(2, 3, 9, 13, seed=2)
    got = ops.binary_scores(q, k)
    np.testing.assert_array_equal(got.numpy(), signs(q) @ np.swapaxes(signs(k), -1, -2))


def test_mask_sign_matmul_sums_the_attended_signs() -> None:
    mask, v = bits(2, 3, 9, 9, seed=3), bits(2, 3, 9, 5, seed=4)
    got = ops.mask_sign_matmul(mask, v)
    assert got.dtype == torch.int32
    np.testing.assert_array_equal(got.numpy(), mask.numpy().astype(np.int64) @ signs(v))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_softmax_mask_keeps_everything_from_the_ratio_on(dtype: torch.dtype) -> None:
    p = torch.tensor([[0.5, 0.125, 0.1249, 0.2501], [0.25, 0.25, 0.25, 0.25]], dtype=dtype)
    assert ops.softmax_mask(p, 0.25).tolist() == [[1, 1, 0, 1], [1, 1, 1, 1]]


@pytest.mark.parametrize("d", [32, 48, 64, 80])
def test_softmax_mask_is_the_integer_rule_of_the_row_best(d: int) -> None:
    scores = ops.binary_scores(bits(4, 31, d, seed=d), bits(4, 31, d, seed=d + 1))
    got = ops.softmax_mask((scores.double() * d**-0.5).softmax(-1), 0.25)
    slack = int(np.log(4) * np.sqrt(d) / 2)
    best = scores.amax(-1, keepdim=True)
    assert torch.equal(got, (scores >= best - 2 * slack).to(torch.uint8))


def test_tap_is_an_identity_that_does_not_alias() -> None:
    x = torch.randn(3, 5)
    got = ops.tap(x, "blocks.0.attn.input")
    assert torch.equal(got, x)
    assert got.data_ptr() != x.data_ptr()


@pytest.mark.parametrize(
    ("op", "arguments"),
    [
        (ops.binarize, (torch.randn(2, 3),)),
        (ops.binary_linear, (bits(2, 3, 7), bits(5, 7))),
        (ops.binary_scores, (bits(2, 3, 7), bits(2, 3, 7))),
        (ops.softmax_mask, (torch.rand(2, 3, 3), 0.25)),
        (ops.mask_sign_matmul, (bits(2, 3, 3), bits(2, 3, 7))),
        (ops.tap, (torch.randn(2, 3), "name")),
    ],
    ids=["binarize", "binary_linear", "binary_scores", "softmax_mask", "mask_sign_matmul", "tap"],
)
def test_fake_implementation_agrees_with_the_real_one(op: Any, arguments: tuple[Any, ...]) -> None:
    torch.library.opcheck(
        op, arguments, test_utils=("test_schema", "test_faketensor", "test_aot_dispatch_dynamic")
    )
