"""What a network says of the programs that an artefact of it has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

__all__ = ["Entries", "Scan"]


@dataclass(frozen=True)
class Scan:
    """An entry that scores the vectors of others.

    Attributes:
        query: Entry that gives the vectors of a text.
        documents: Entry that gives those of an image.
        first: Whether it scores the first vector of each side alone.
    """

    query: str
    documents: str
    first: bool = False


Entries: TypeAlias = Mapping[str, Sequence[str] | Scan]
"""By name, the outputs of an entry, or what it scans."""
