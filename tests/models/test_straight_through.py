"""Straight-through estimators at the places where they turn."""

import math

import pytest
import torch

from vitc.models.straight_through import Window, sign, signs


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_both_zeros_are_positive(dtype: torch.dtype) -> None:
    x = torch.tensor([0.0, -0.0, 1e-30, -1e-30, math.inf, -math.inf], dtype=dtype)
    assert signs(x).tolist() == [1, 1, 1, -1, 1, -1]


def test_a_scale_of_zero_leaves_nothing() -> None:
    x = torch.tensor([[-2.0, 3.0], [4.0, -0.0]])
    scale = torch.tensor([[0.0], [0.5]])
    assert (signs(x, scale) == torch.tensor([[0.0, 0.0], [0.5, 0.5]])).all()


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_window_holds_its_limit_where_it_is_closed(dtype: torch.dtype, closed: bool) -> None:
    one = torch.ones((), dtype=dtype)
    after = torch.nextafter(one, 2 * one)
    before = torch.nextafter(one, 0 * one)
    x = torch.stack([-after, -one, -before, 0 * one, before, one, after]).requires_grad_()
    sign(x, Window(closed=closed)).backward(torch.arange(1, 8).to(dtype))
    assert x.grad is not None
    limit = [2, 6] if closed else [0, 0]
    assert x.grad.tolist() == [0, limit[0], 3, 4, 5, limit[1], 0]


def test_gradients_are_those_of_a_comparison() -> None:
    torch.manual_seed(0)
    x = (3 * torch.randn(7, 33)).requires_grad_()
    grad = torch.randn(7, 33)
    sign(x, Window(1.5), torch.full((7, 1), 0.25)).backward(grad)
    other = x.detach().clone().requires_grad_()
    sign(other, other.detach().abs() < 1.5, 0.25).backward(grad)
    assert x.grad is not None
    assert other.grad is not None
    assert (x.grad == other.grad).all()
