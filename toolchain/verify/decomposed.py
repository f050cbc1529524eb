"""Operators of torch that have no rule of rounding, as others that may have one.

What torch itself says an operator is made of (`torch._decomp`) is computed instead of it, so that
an activation, a norm or a kind of padding that nobody here thought of has the bound of its parts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._decomp import decomposition_table

__all__ = ["lies_alike", "parts_of", "without_change"]


def parts_of(operator: Any) -> Callable[..., Any] | None:
    """What computes the same by other operators; None if torch does not say."""
    known: Callable[..., Any] | None = decomposition_table.get(operator)
    if known is not None:
        return known
    if operator._can_decompose():
        composite: Callable[..., Any] = operator.decompose
        return composite
    return None


def without_change(operator: Any) -> Any:
    """The twin of an operator that changes its first argument; it makes a new tensor.

    None if there is no such twin.
    """
    name, overload = operator._schema.name.partition("::")[2], operator._overloadname
    packet = getattr(torch.ops.aten, name.removesuffix("_"), None)
    if operator.namespace != "aten" or not name.endswith("_") or packet is None:
        return None
    return getattr(packet, overload, None)


def lies_alike(tensor: Tensor, other: Tensor) -> bool:
    """Whether two tensors of one memory have the same elements in the same order."""
    if tensor.storage_offset() != other.storage_offset():
        return False
    if tensor.shape == other.shape:
        sizes = zip(tensor.shape, tensor.stride(), other.stride(), strict=True)
        return all(one == two for size, one, two in sizes if size > 1)
    both = tensor.is_contiguous() and other.is_contiguous()
    return both and tensor.numel() == other.numel()
