"""Sums over the processes of a training run, through which gradients go.

A batch is split over them, and what is computed of the whole batch (statistics of a batch norm,
norms of tensors) is a sum of what each has. Where there is one process nothing happens.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, distributed

__all__ = ["counted", "processes", "summed"]


class _Summed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:  # noqa: ARG004
        total = tensor.clone().contiguous()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:  # noqa: ARG004
        total = grads[0].clone().contiguous()
        distributed.all_reduce(total)
        return total


def processes() -> int:
    """How many processes train together."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_world_size()
    return 1


def summed(tensor: Tensor) -> Tensor:
    """The sum over all processes, each of which must call this; gradients are summed likewise."""
    if processes() == 1:
        return tensor
    return cast(Tensor, _Summed.apply(tensor))  # type: ignore[no-untyped-call]


def counted(count: int, like: Tensor) -> float:
    """The sum of a number over all processes.

    Args:
        count: What this process has.
        like: Names the device that processes talk through.
    """
    if processes() == 1:
        return count
    return float(summed(torch.tensor(float(count), dtype=torch.float64, device=like.device)))
