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
    "FP32_EPS",
    "UNDERFLOW",
    "Kind",
    "Observer",
    "TapEvent",
    "binarize",
    "marking",
    "observe",
    "tap",
]

Kind: TypeAlias = Literal["bits", "int", "float"]

FP32_EPS = 2.0**-23

UNDERFLOW = 2.0**-86
"""A magnitude below which fp32 is no longer relative: 2^-24 of it is 2^16 times 2^-126.

A result below 2^-126 keeps fewer bits, or none where denormals are flushed, which costs up to
2^-126 for each of at most 2^16 products.
"""


@dataclass(frozen=True, eq=False)
class TapEvent:
    """What an observer sees of one value.

    Attributes:
        name: Tap name, such as ``blocks.0.attn.input``.
        kind: ``bits`` (uint8 {0, 1}), ``int`` (int32) or ``float``.
        value: The value itself.
        pre: For bits, the value whose sign was taken, in the shape of `value`; else None.
        magnitude: Returns the sum of the absolute values of the terms that were added to make `pre`
            (for a float tap, the value), broadcastable to `value`; None if the value is exact.
        terms: How many fp32 roundings lie between the terms and the sum.
    """

    name: str
    kind: Kind
    value: Tensor
    pre: Tensor | None = None
    magnitude: Callable[[], Tensor] | None = None
    terms: int = 4

    def bound(self) -> Tensor | None:
        """Largest fp32 rounding error of `pre` (or of a float value): terms * 2^-23 * magnitude."""
        if self.magnitude is None:
            return None
        return self.terms * FP32_EPS * self.magnitude()


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


def tap(
    name: str,
    value: Tensor,
    kind: Kind = "float",
    pre: Tensor | Callable[[], Tensor] | None = None,
    magnitude: Callable[[], Tensor] | None = None,
    terms: int = 4,
) -> Tensor:
    """Name `value`; the arguments are the fields of `TapEvent`.

    A callable `pre` is evaluated only if there is an observer.

    Returns:
        The value to go on with: `value`, or what the observer put in its place, cast to its dtype.
    """
    if _marks.get():
        exported: Tensor = ops.tap(value, name)
        return exported
    observer = _observer.get()
    if observer is None:
        return value
    signed = pre() if callable(pre) else pre
    replacement = observer(TapEvent(name, kind, value, signed, magnitude, terms))
    if replacement is None:
        return value
    return replacement.to(device=value.device, dtype=value.dtype).reshape(value.shape)


def binarize(
    pre: Tensor,
    name: str,
    magnitude: Callable[[], Tensor] | None = None,
    terms: int = 4,
) -> Tensor:
    """Bits of the signs of `pre` (1 where pre >= 0), tapped as `name`; uint8, shape of `pre`."""
    return tap(name, ops.binarize(pre), "bits", pre, magnitude, terms)
