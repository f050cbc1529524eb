"""Which of a tower's outputs meet those of the other: the modes of late interaction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from torch import Tensor

__all__ = ["MODES", "Mode"]


@dataclass(frozen=True)
class Mode:
    """One mode (Inflate and Shrink, section 3).

    Attributes:
        name: Key of `MODES`.
        codes: Whether codes stand behind the tokens at the encoder's input.
        first: Whether the first row of each side alone is kept.
        margin: Of the ranking loss.
    """

    name: str
    codes: bool
    first: bool
    margin: float

    def kept(self, rows: Tensor) -> Tensor:
        """Encoded rows [B, N, d] to those that meet the other side's, [B, a, d]."""
        return rows[:, :1] if self.first else rows

    def interactions(self, tokens: int, codes: int) -> int:
        """Products of vectors for a text and an image."""
        rows = 1 if self.first else tokens + codes * self.codes
        return rows * rows


MODES: Final[Mapping[str, Mode]] = MappingProxyType(
    {
        mode.name: mode
        for mode in (
            Mode("base", codes=False, first=False, margin=0.6),
            Mode("inflate", codes=True, first=False, margin=0.6),
            Mode("fast", codes=False, first=True, margin=0.2),
        )
    }
)
"""A student that is shrunken has the mode base or fast too: it differs in what it learns from."""
