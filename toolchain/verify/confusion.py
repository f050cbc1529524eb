"""Into which classes labelled images are put, by both sides of a check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["ConfusionMatrix"]


@dataclass(frozen=True)
class ConfusionMatrix:
    """The confusion matrices of reference and candidate, without their zeros.

    Attributes:
        labels: Names of the classes.
        reference: Label and class that the reference gives, to how many images have them.
        candidate: The same of the candidate.
    """

    labels: tuple[str, ...]
    reference: Mapping[tuple[int, int], int]
    candidate: Mapping[tuple[int, int], int]

    @classmethod
    def of(
        cls,
        labels: NDArray[np.int64],
        reference: NDArray[np.int64],
        candidate: NDArray[np.int64],
        names: Sequence[str] = (),
    ) -> ConfusionMatrix:
        """Count images.

        Args:
            labels: Class that each image is of, [B].
            reference: Class that the reference gives it, [B].
            candidate: Class that the candidate gives it, [B].
            names: Of the classes; what they do not name is called by its number.
        """
        classes = max(int(each.max()) for each in (labels, reference, candidate)) + 1
        numbers = map(str, range(len(names), classes))
        return cls((*names, *numbers), _counted(labels, reference), _counted(labels, candidate))

    def to_dict(self) -> dict[str, Any]:
        """The JSON form: a row [label, class, images] for each count that is not 0."""
        return {
            "labels": list(self.labels),
            "reference": [[*pair, count] for pair, count in self.reference.items()],
            "candidate": [[*pair, count] for pair, count in self.candidate.items()],
        }


def _counted(labels: NDArray[np.int64], given: NDArray[np.int64]) -> dict[tuple[int, int], int]:
    pairs, counts = np.unique(np.stack([labels, given], axis=1), axis=0, return_counts=True)
    return {
        (label, chosen): count
        for (label, chosen), count in zip(pairs.tolist(), counts.tolist(), strict=True)
    }
