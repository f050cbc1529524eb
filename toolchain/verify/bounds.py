"""How far fp32 may be from the float64 reference before a difference is a fault."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from vitc.models.taps import UNDERFLOW

if TYPE_CHECKING:
    from torch import Tensor

    from vitc.models.taps import TapEvent

__all__ = ["SAFETY", "rounding_bound", "roundings"]

_UNIT: Final = 2.0**-24
_LAMBDA: Final = 6.0
SAFETY: Final = 2.0
"""On top of the first-order bound: for second-order terms, and constants rounded themselves."""


def roundings(terms: int) -> float:
    """Effective number of roundings in a sum.

    The worst case grows with `terms`, but rounding errors are as good as independent: their sum
    stays below lambda * sqrt(terms) with probability 1 - 2 exp(-lambda^2 / 2) (Higham and Mary, A
    New Approach to Probabilistic Rounding Error Analysis, SIAM J. Sci. Comput. 2019). With SAFETY,
    lambda = 6 leaves less than 1e-30. Short sums keep the worst case.
    """
    return min(float(terms), _LAMBDA * math.sqrt(terms))


def rounding_bound(event: TapEvent) -> Tensor | None:
    """Largest fp32 rounding error of a tap's pre-sign value, or of a float tap's value.

    Args:
        event: The tap as the float64 reference computes it.

    Returns:
        SAFETY * roundings * 2^-24 * (magnitude + UNDERFLOW), broadcastable to the value; None if it
        is exact.
    """
    if event.magnitude is None:
        return None
    return (event.magnitude() + UNDERFLOW) * (SAFETY * roundings(event.terms) * _UNIT)
