"""Layers of torch that take another way where they are not trained, as one opaque operator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["without_fast_paths"]


@contextmanager
def without_fast_paths() -> Iterator[None]:
    """In the `with` block `torch.nn.MultiheadAttention` consists of operators that have names."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
