"""What a report shows of a confusion matrix: a table where it fits, and what is mistaken most."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["ClassRow", "ShownClasses", "shown_classes"]

_TABLE: Final = 16
"""Classes of a table that can be read on a telephone."""

_MISTAKES: Final = 20
_COUNTED: Final = 1000
"""From so many images in a cell on, cells have percent."""


@dataclass(frozen=True)
class ClassRow:
    """A class that images have.

    Attributes:
        number: Of the class.
        name: Its label.
        images: That have it.
        reference: Share that the reference gets right, in [0, 1].
        candidate: Share that the candidate gets right, in [0, 1].
    """

    number: int
    name: str
    images: int
    reference: float
    candidate: float


@dataclass(frozen=True)
class ShownClasses:
    """A confusion matrix, for people.

    Attributes:
        rows: Every class that images have.
        columns: Classes of the table; empty if there are too many.
        cells: By label and class that was given, text and share of the label's images.
        percent: Whether the text is in percent.
        mistakes: What is mistaken most by the candidate: label, class, images.
    """

    rows: list[ClassRow]
    columns: list[int]
    cells: Mapping[tuple[int, int], tuple[str, float]]
    percent: bool
    mistakes: list[tuple[str, str, int]]


def shown_classes(confusion: Mapping[str, Any]) -> ShownClasses:
    """Arrange the JSON form of a `ConfusionMatrix`."""
    names = confusion["labels"]
    own, theirs = (
        {(label, given): count for label, given, count in confusion[side]}
        for side in ("reference", "candidate")
    )
    images: Counter[int] = Counter()
    for (label, _), count in theirs.items():
        images[label] += count
    rows = [
        ClassRow(
            label,
            names[label],
            count,
            own.get((label, label), 0) / count,
            theirs.get((label, label), 0) / count,
        )
        for label, count in sorted(images.items())
    ]
    columns = sorted({number for pair in theirs for number in pair})
    percent = max(theirs.values()) >= _COUNTED
    cells = {
        pair: (f"{100 * count / images[pair[0]]:.0f}" if percent else str(count),
               count / images[pair[0]])
        for pair, count in theirs.items()
    }  # fmt: skip
    wrong = [(count, pair) for pair, count in theirs.items() if pair[0] != pair[1]]
    most = sorted(wrong, key=lambda each: (-each[0], each[1]))[:_MISTAKES]
    return ShownClasses(
        rows,
        columns if len(columns) <= _TABLE else [],
        cells,
        percent,
        [(names[label], names[given], count) for count, (label, given) in most],
    )
