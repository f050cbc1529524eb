"""Thresholds that decide the same where numbers below 2^-126 (denormals) count as zero.

32-bit NEON flushes denormals: operands and results alike. Each threshold is therefore moved, at
export, to a place where no value that it is compared with can tell the difference.

A threshold t of the residual stream: with x zero or normal,

    x >= t  <=>  x >= 2^-126   for 0 < t < 2^-126
    x >= t  <=>  x >= 0        for -2^-126 < t < 0

A stream value that is itself a denormal is flushed by such hardware before any threshold sees it.

A binary linear, `scale[o] I >= offset[o] + upper[n,g]` (or <= with lower): denormals among the four
constants become 2^24 times as large, and what is then less than 2^-102 a multiple of 2^-126
(upwards, lower downwards). Larger fp32 numbers are multiples of 2^-126 already, so every sum is
one, and every product is zero or at least as large as its scale: no operand and no result is a
denormal. I takes the k + 1 values -k, -k + 2 .. k, and the product is monotone in I; so old and new
constants are compared at all of them, for every row and token, and the new ones are taken only if
they decide each as the old ones do. That can fail only where shifts or scales of less than 2^-78
stand side by side. Then the old ones stay, `decides_alike_when_flushed` is false, and vitc.compiler
refuses the layer for a target that flushes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import astuple, dataclass

import numpy as np
import numpy.typing as npt

__all__ = [
    "SMALLEST_NORMAL",
    "LinearDecision",
    "decides_alike_when_flushed",
    "flushed",
    "normal_bias",
    "normal_summands",
    "normal_threshold",
    "stored_decision",
    "summands_decide_alike_when_flushed",
]

logger = logging.getLogger(__name__)

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

SMALLEST_NORMAL = 2.0**-126
_ON_THE_GRID = 2.0**-102
_SMALLEST = 2.0**-149
_LIFT = 2.0**24


@dataclass(frozen=True, eq=False)
class LinearDecision:
    """The constants of a BinaryLinearThreshold.

    Attributes:
        scale: fp32 [O].
        offset: fp32 [O].
        upper: fp32 [1|N, 1|G].
        lower: fp32 [1|N, 1|G].
    """

    scale: Float32
    offset: Float32
    upper: Float32
    lower: Float32


def flushed(values: Float32) -> Float32:
    """Return `values` with zeros for denormals."""
    return np.where(np.abs(values) < SMALLEST_NORMAL, np.float32(0), values)


def normal_bias(bias: Float32) -> Float32:
    """Return biases of scores of which none is a denormal, and which decide as `bias`.

    A denormal tells only among scores of 0, and there only on which side of 0 it lies: a cut is at
    least 2^-100, so what is compared with it is 0 or normal.
    """
    tiny = np.abs(bias) < SMALLEST_NORMAL
    near = np.where(bias < 0, -np.float32(SMALLEST_NORMAL), np.float32(0))
    return np.where(tiny, near, bias)


def normal_summands(one: Float32, other: Float32) -> tuple[Float32, Float32]:
    """Return summands of thresholds of integers, without denormals if they decide alike so.

    Args:
        one: [N].
        other: [M]; the threshold of n and m is the sum of both, in fp32.

    Returns:
        Both, so that no sum is a denormal, if every integer then is on the same side of every sum;
        else as they were.
    """
    # Denormals matter beside zeros and small numbers, or beside each other.
    raised = _raised(one), _raised(other)
    lifted = _lifted(one, np.ceil), _lifted(other, np.ceil)
    with np.errstate(over="ignore", invalid="ignore"):
        decided = np.ceil(one[:, None] + other)
        for first, second in (raised, lifted):
            if np.array_equal(decided, np.ceil(first[:, None] + second), equal_nan=True):
                return first, second
    return one, other


def summands_decide_alike_when_flushed(one: Float32, other: Float32) -> bool:
    """Whether sums of these summands are on the same side of every integer without denormals."""
    one, other = normal_summands(one, other)
    with np.errstate(over="ignore", invalid="ignore"):
        sums = one[:, None] + other
    flushed_sums = flushed(one)[:, None] + flushed(other)
    return np.array_equal(np.ceil(sums), np.ceil(flushed(flushed_sums)), equal_nan=True)


def normal_threshold(threshold: Float32) -> Float32:
    """Return a threshold that is no denormal and decides for zeros and normal x as `threshold`."""
    tiny = np.abs(threshold) < SMALLEST_NORMAL
    near = np.where(threshold > 0, np.float32(SMALLEST_NORMAL), np.float32(0))
    return np.where(tiny, near, threshold)


def stored_decision(
    scale: Float32, offset: Float64, upper: Float64, lower: Float64, k: int
) -> LinearDecision:
    """Round the constants of a binary linear threshold to fp32.

    Args:
        scale: [O].
        offset: [O].
        upper: [1|N, 1|G].
        lower: [1|N, 1|G].
        k: Length of the contraction.

    Returns:
        Constants without denormals; with them, if others would decide some integer otherwise.
    """
    exact = LinearDecision(
        scale,
        _rounded(offset, np.rint),
        _rounded(upper, np.ceil),
        _rounded(lower, np.floor),
    )
    normal = LinearDecision(
        _lifted(exact.scale, np.ceil),
        _lifted(exact.offset, np.ceil),
        _lifted(exact.upper, np.ceil),
        _lifted(exact.lower, np.floor),
    )
    if all(map(np.array_equal, astuple(exact), astuple(normal))):
        return exact
    if _alike(_decided(exact, k, _unchanged), _decided(normal, k, _unchanged)):
        return normal
    logger.debug("thresholds below %g stay: no others decide alike", SMALLEST_NORMAL)
    return exact


def decides_alike_when_flushed(decision: LinearDecision, k: int) -> bool:
    """Whether a binary linear threshold gives the same bits where denormals are flushed."""
    tiny = any((flushed(a) != a).any() for a in (decision.scale, *_sums(decision, _unchanged)))
    tiny |= any((flushed(a) != a).any() for a in (decision.offset, decision.upper, decision.lower))
    return not tiny or _alike(_decided(decision, k, _unchanged), _decided(decision, k, flushed))


Rounding = Callable[[Float64], Float64]


def _rounded(values: Float64, rounding: Rounding) -> Float32:
    """Round to the nearest fp32 number, but denormals in one direction: none loses its sign."""
    with np.errstate(over="ignore"):
        nearest = values.astype(np.float32)
    small = np.abs(values) < SMALLEST_NORMAL
    multiples = rounding(np.where(small, values, 0) / _SMALLEST) * _SMALLEST
    # Adding zero makes -0 one: nothing here depends on the sign of a zero.
    return np.where(small, (multiples + 0.0).astype(np.float32), nearest)


def _lifted(values: Float32, rounding: Rounding) -> Float32:
    """Return `values` with multiples of 2^-126 for all that is small."""
    exact = values.astype(np.float64)
    exact = np.where(np.abs(exact) < SMALLEST_NORMAL, exact * _LIFT, exact)
    small = np.abs(exact) < _ON_THE_GRID
    multiples = rounding(np.where(small, exact, 0) / SMALLEST_NORMAL) * SMALLEST_NORMAL
    return np.where(small, multiples + 0.0, exact).astype(np.float32)


def _raised(values: Float32) -> Float32:
    """Return `values` with the next multiple of 2^-126 for all that is small."""
    exact = values.astype(np.float64)
    small = np.abs(exact) < _ON_THE_GRID
    multiples = np.ceil(np.where(small, exact, 0) / SMALLEST_NORMAL) * SMALLEST_NORMAL
    return np.where(small, multiples + 0.0, exact).astype(np.float32)


Flush = Callable[[Float32], Float32]


def _unchanged(values: Float32) -> Float32:
    return values


def _sums(decision: LinearDecision, flush: Flush) -> tuple[Float32, Float32]:
    """Return offset[o] + upper[n,g] and offset[o] + lower[n,g], each fp32 [1|N, O]."""
    offset = flush(decision.offset)
    width = len(offset)
    sums = []
    with np.errstate(over="ignore"):
        for bound in (decision.upper, decision.lower):
            per_row = np.repeat(flush(bound), width // bound.shape[1], axis=1)
            sums.append(flush(offset + per_row))
    return sums[0], sums[1]


def _decided(decision: LinearDecision, k: int, flush: Flush) -> tuple[npt.NDArray[np.int64], ...]:
    """Return how many of the k + 1 products lie below each upper and up to each lower bound."""
    integers = np.arange(-k, k + 1, 2).astype(np.float32)
    upper, lower = _sums(decision, flush)
    below = np.empty(upper.shape, np.int64)
    up_to = np.empty(lower.shape, np.int64)
    for row, scale in enumerate(flush(decision.scale)):
        products = np.sort(flush(integers * scale))
        below[:, row] = np.searchsorted(products, upper[:, row], "left")
        up_to[:, row] = np.searchsorted(products, lower[:, row], "right")
    return below, up_to


def _alike(
    one: tuple[npt.NDArray[np.int64], ...], other: tuple[npt.NDArray[np.int64], ...]
) -> bool:
    return all(map(np.array_equal, one, other))
