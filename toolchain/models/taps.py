"""Taps: one name for one value, from PyTorch to the device.

Model code passes every value that a later stage must reproduce through `tap`. Without an observer
that costs one look-up; with one (`observe`) the observer sees the value and may replace it: so
``vitc check`` feeds every layer what the candidate fed it. While a network is recorded for export
(`marking`) a tap is a call of ``vitc::tap``, which carries the name into the ONNX file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal, TypeAlias

from torch import Tensor

from vitc.models import ops

__all__ = [
    "Kind",
    "Observer",
    "TapEvent",
    "binarize",
    "marking",
    "observe",
    "tap",
]

Kind: TypeAlias = Literal["bits", "int", "codes", "float"]


@dataclass(frozen=True, eq=False)
class TapEvent:
    """What an observer sees of one value.

    Attributes:
        name: Tap name, such as ``blocks.0.attn.input``.
        kind: ``bits`` (uint8 {0, 1}), ``int`` (int32), ``codes`` (uint8, of floats that were
            rounded) or ``float``.
        value: The value itself.
    """

    name: str
    kind: Kind
    value: Tensor


Observer: TypeAlias = Callable[[TapEvent], Tensor | None]

_observer: ContextVar[Observer | None] = ContextVar("vitc_tap_observer", default=None)
_marks: ContextVar[bool] = ContextVar("vitc_tap_marks", default=False)


@contextmanager
def marking() -> Iterator[None]:
    """Inside the `with` block (of this thread) every tap is a call of ``vitc::tap``."""
    token = _marks.set(True)
    try:
        yield
    finally:
        _marks.reset(token)


@contextmanager
def observe(observer: Observer) -> Iterator[None]:
    """Show every tap inside the `with` block (of this thread) to `observer`.

    Args:
        observer: Called with each `TapEvent` in the order of computation. It returns None to keep
            the value, or a tensor of the same shape that the forward pass continues with.
    """
    token = _observer.set(observer)
    try:
        yield
    finally:
        _observer.reset(token)


def tap(name: str, value: Tensor, kind: Kind = "float") -> Tensor:
    """Name `value`.

    Args:
        name: Tap name, such as ``blocks.0.attn.input``.
        value: The value; its first axis counts images.
        kind: What it holds.

    Returns:
        The value to go on with: `value`, or what the observer put in its place, cast to its dtype.
    """
    if _marks.get():
        marked: Tensor = ops.tap(value, name)
        return marked
    observer = _observer.get()
    replacement = None if observer is None else observer(TapEvent(name, kind, value))
    if replacement is None:
        return value
    return replacement.to(device=value.device, dtype=value.dtype).reshape(value.shape)


def binarize(pre: Tensor, name: str) -> Tensor:
    """Bits of the signs of `pre` (1 where pre >= 0), tapped as `name`; uint8, shape of `pre`."""
    return tap(name, ops.binarize(pre), "bits")
