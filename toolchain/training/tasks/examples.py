"""Examples of a task: pictures as a network takes them, with boxes or masks."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitc.models.preprocessing import Preprocessing
from vitc.training.tasks.scenes import Part, scene

__all__ = ["Example", "FileExamples", "SceneExamples", "TaskExamples", "batch_of"]

_KEPT_BYTES = 1 << 30


@dataclass(frozen=True, eq=False)
class Example:
    """One picture of the network's size, and what is in it.

    Attributes:
        pixels: uint8 [H, W, 3].
        boxes: float64 [n, 4], x0, y0, x1, y1 in pixels of it.
        classes: int64 [n], of the boxes.
        crowd: bool [n]: a box around many, which is neither learnt nor counted.
        mask: int64 [H, W], class of each pixel, -1 for void; None of a data set of boxes.
    """

    pixels: NDArray[np.uint8]
    boxes: NDArray[np.float64]
    classes: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    mask: NDArray[np.int64] | None = None


class TaskExamples(ABC):
    """Examples of one part of a data set; see `vitc.training.data.Examples`.

    Attributes:
        labels: Names of the classes.
        names: One a picture, for messages.
        preprocessing: How pictures become inputs.
        in_memory: Whether an example costs no reading.
        epoch: Whose scenes are given, counted from 0.
    """

    labels: tuple[str, ...]
    names: Sequence[str]
    preprocessing: Preprocessing
    in_memory: bool = True
    epoch: int = 0

    def __len__(self) -> int:
        return len(self.names)

    @abstractmethod
    def example(self, index: int) -> Example:
        """One of them.

        Raises:
            VitcError: If it cannot be read, or does not hold together; it is named.
        """

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, ...]:
        """A batch, see `batch_of`."""
        return batch_of([self.example(index) for index in indices], self.preprocessing)


def batch_of(examples: Sequence[Example], preprocessing: Preprocessing) -> tuple[Tensor, ...]:
    """Several examples as tensors.

    Returns:
        Normalised images [B, 3, H, W]; boxes [B, n, 4] and their classes [B, n], filled up with
        boxes of zeros of class -1, crowds left out; and, if there are any, masks [B, H, W].
    """
    images = torch.from_numpy(preprocessing.normalise(np.stack([e.pixels for e in examples])))
    most = max((int((~e.crowd).sum()) for e in examples), default=0)
    boxes = torch.zeros(len(examples), most, 4)
    classes = torch.full((len(examples), most), -1, dtype=torch.int64)
    for row, each in enumerate(examples):
        own = ~each.crowd
        count = int(own.sum())
        boxes[row, :count] = torch.from_numpy(each.boxes[own]).float()
        classes[row, :count] = torch.from_numpy(each.classes[own])
    masks = [e.mask for e in examples if e.mask is not None]
    more = (torch.from_numpy(np.stack(masks)),) if masks else ()
    return images, boxes, classes, *more


class SceneExamples(TaskExamples):
    """Scenes of digits.

    Args:
        variant: One of `vitc.training.tasks.scenes.SCENES`.
        part: Which digits.
        count: How many scenes.
        labels: Names of the classes: digits, or for masks also that of no digit before them.
        preprocessing: Gives the size.
        masks: Whether masks are given.
        seed: Of scenes to learn from, which are new in every epoch; None for fixed ones.
    """

    def __init__(
        self,
        variant: str,
        part: Part,
        count: int,
        labels: Sequence[str],
        preprocessing: Preprocessing,
        *,
        masks: bool,
        seed: int | None = None,
    ) -> None:
        self.variant = variant
        self.part = part
        self.labels = tuple(labels)
        self.names = tuple(f"{variant}/{part}/{index:04d}" for index in range(count))
        self.preprocessing = preprocessing
        self.masks = masks
        self.seed = seed

    def example(self, index: int) -> Example:
        """See `TaskExamples.example`."""
        crop = self.preprocessing.crop
        size = crop if isinstance(crop, tuple) else (crop, crop)
        fresh = (0, 0) if self.seed is None else (self.seed, self.epoch)
        made = scene(self.variant, self.part, size, index, *fresh)
        return Example(
            made.pixels,
            made.boxes,
            made.classes,
            np.zeros(len(made.classes), bool),
            made.mask.astype(np.int64) if self.masks else None,
        )


class FileExamples(TaskExamples):
    """Pictures in files, kept in memory if all of them fit into 1 GiB; a subclass reads one."""

    def __init__(
        self, names: Sequence[str], labels: Sequence[str], preprocessing: Preprocessing
    ) -> None:
        self.names = tuple(names)
        self.labels = tuple(labels)
        self.preprocessing = preprocessing
        crop = preprocessing.crop
        pixels = math.prod(crop if isinstance(crop, tuple) else (crop, crop))
        self.in_memory = len(self.names) * pixels * 11 <= _KEPT_BYTES
        self._kept: dict[int, Example] = {}

    def example(self, index: int) -> Example:
        """See `TaskExamples.example`."""
        if index in self._kept:
            return self._kept[index]
        made = self.read(index)
        if self.in_memory:
            self._kept[index] = made
        return made

    @abstractmethod
    def read(self, index: int) -> Example:
        """One of them, from its files.

        Raises:
            VitcError: If it cannot be read, or does not hold together; it is named.
        """
