"""Times in the unit that gives them digits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

__all__ = ["Unit", "unit_of"]

_FEWEST_MS: Final = 0.1
"""Below this, three decimals of a millisecond say little."""


@dataclass(frozen=True)
class Unit:
    """A unit of time.

    Attributes:
        name: Its sign.
        per_ms: How many make a millisecond.
        decimals: To write.
    """

    name: str
    per_ms: float
    decimals: int

    def number(self, milliseconds: float) -> str:
        """A time without its unit."""
        return f"{milliseconds * self.per_ms:.{self.decimals}f}"

    def text(self, milliseconds: float) -> str:
        """A time with its unit."""
        return f"{self.number(milliseconds)} {self.name}"


_MS: Final = Unit("ms", 1, 3)
_US: Final = Unit("us", 1000, 2)


def unit_of(milliseconds: Iterable[float]) -> Unit:
    """The unit for times that stand together: microseconds if one has too few digits in ms."""
    return _US if any(0 < time < _FEWEST_MS for time in milliseconds) else _MS
