"""What a task is judged by: mean average precision of boxes, mean intersection over union."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from vitc.runtime.detection import Detections
from vitc.training.tasks.examples import Example

__all__ = ["Confusion", "Precision", "precision"]


@dataclass(frozen=True)
class Precision:
    """COCO's figures, in [0, 1].

    Attributes:
        map: Mean average precision over overlaps .5, .55 .. .95, and classes.
        map50: At an overlap of .5.
    """

    map: float
    map50: float


def precision(found: Sequence[Detections], wanted: Sequence[Example], classes: int) -> Precision:
    """Mean average precision, by pycocotools.

    Args:
        found: Boxes of each picture.
        wanted: The pictures.
        classes: Number of classes.
    """
    truth = COCO()
    truth.dataset = {
        "images": [{"id": index} for index in range(len(wanted))],
        "categories": [{"id": index} for index in range(classes)],
        "annotations": [
            {
                "id": number,
                "image_id": image,
                "category_id": int(own),
                "bbox": _sides(box),
                "area": float(np.prod(box[2:] - box[:2])),
                "iscrowd": int(crowd),
            }
            for number, (image, box, own, crowd) in enumerate(
                (
                    (image, *each)
                    for image, example in enumerate(wanted)
                    for each in zip(example.boxes, example.classes, example.crowd, strict=True)
                ),
                1,
            )
        ],
    }
    told = [
        {"image_id": image, "category_id": int(own), "bbox": _sides(box), "score": float(score)}
        for image, each in enumerate(found)
        for box, score, own in zip(each.boxes, each.scores, each.classes, strict=True)
    ]
    if not told or not truth.dataset["annotations"]:
        return Precision(0.0, 0.0)
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        judge = COCOeval(truth, truth.loadRes(told), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return Precision(max(float(judge.stats[0]), 0.0), max(float(judge.stats[1]), 0.0))


def _sides(box: NDArray[np.float32] | NDArray[np.float64]) -> list[float]:
    x0, y0, x1, y1 = (float(side) for side in box)
    return [x0, y0, x1 - x0, y1 - y0]


class Confusion:
    """Pixels counted by their class and by what was said.

    Args:
        classes: K.

    Attributes:
        counts: int64 [K, K]: wanted, said.
    """

    def __init__(self, classes: int) -> None:
        self.counts = np.zeros((classes, classes), np.int64)

    def add(self, said: NDArray[np.integer], wanted: NDArray[np.integer]) -> None:
        """Count the pixels of pictures; those that are -1 are void."""
        known = wanted >= 0
        classes = len(self.counts)
        pairs = classes * wanted[known].astype(np.int64) + said[known].astype(np.int64)
        self.counts += np.bincount(pairs, minlength=classes**2).reshape(classes, classes)

    @property
    def overlaps(self) -> NDArray[np.float64]:
        """Intersection over union of each class; NaN of one that is neither there nor said."""
        right = np.diag(self.counts).astype(np.float64)
        union = self.counts.sum(axis=0) + self.counts.sum(axis=1) - right
        overlaps: NDArray[np.float64] = np.divide(
            right, union, out=np.full(len(right), np.nan), where=union > 0
        )
        return overlaps

    @property
    def mean(self) -> float:
        """Mean intersection over union of the classes that are there."""
        known = self.overlaps[~np.isnan(self.overlaps)]
        return float(known.mean()) if len(known) else 0.0
