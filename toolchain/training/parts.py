"""The three parts of a training run's images: to learn from, to choose the epoch by, to judge by.

Where ``train/``, ``val/`` and ``test/`` are given, those are the parts. Otherwise the validation
part is a tenth of every class of the training images. Which ones depends on nothing but the data,
not on a run's seed: a network that starts from another, or has a teacher, then chooses its epoch by
images that the other has not learnt from either.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from vitc.errors import VitcError
from vitc.models.preprocessing import Preprocessing
from vitc.training.data import DIGITS, Dataset, load_dataset

__all__ = ["Parts", "hold_out", "load_parts"]

_VALIDATION_SHARE: Final = 0.1
_SEED: Final = 0


@dataclass(frozen=True)
class Parts:
    """Images of a run; no image is in two parts.

    Attributes:
        train: The weights are learnt from these.
        validation: The best epoch is chosen by these.
        test: The chosen weights are judged by these, and nothing else is done with them.
        left: What lies in the folder and is in no part, and how often.
    """

    train: Dataset
    validation: Dataset
    test: Dataset
    left: Mapping[str, int] = field(default_factory=dict)


def load_parts(spec: str, preprocessing: Preprocessing) -> Parts:
    """Find the three parts; `test` is `load_dataset`'s.

    Args:
        spec: ``digits`` or a folder, see `vitc.training.data.load_dataset`.
        preprocessing: How images become inputs.

    Raises:
        VitcError: As `load_dataset`, or if there are no images for validation.
    """
    train = load_dataset(spec, preprocessing, "train")
    left = Counter(train.left)
    test = load_dataset(spec, preprocessing, "test", train.labels)
    folder = Path(spec)
    if spec == DIGITS or not all((folder / part).is_dir() for part in ("train", "val", "test")):
        train, validation = hold_out(train)
        if not len(validation):
            raise VitcError(
                f"{spec} has one training image a class, which leaves none to choose an epoch by.",
                "Add images.",
            )
        return Parts(train, validation, test, left)
    validation = load_dataset(str(folder / "val"), preprocessing, "all", train.labels)
    if not validation.labels:
        raise VitcError(
            f"{folder / 'val'} holds images but no class folders.",
            f"It needs the class folders of {folder / 'train'}.",
        )
    left.update(validation.left)
    return Parts(train, validation, test, left)


def hold_out(data: Dataset) -> tuple[Dataset, Dataset]:
    """Split off a tenth of every class, at least one image, none of a class of one.

    Returns:
        What stays, and what is split off, each in the order of `data`.
    """
    held: set[int] = set()
    for target, label in enumerate(data.labels):
        own = (data.targets == target).nonzero().flatten().tolist()
        count = max(1, round(_VALIDATION_SHARE * len(own))) if len(own) > 1 else 0
        held.update(random.Random(f"{_SEED}/validation/{label}").sample(own, count))  # noqa: S311
    stays = [index for index in range(len(data)) if index not in held]
    return data.subset(stays), data.subset(sorted(held))
