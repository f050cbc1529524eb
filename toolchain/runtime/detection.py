"""From the maps of a detector to boxes; `vitc_detect.h` does the same in C, with equal results.

Every step is a single addition, product or comparison of fp32, so there is nothing that a compiler
could round otherwise. Boxes are x0, y0, x1, y1 in pixels of the network's input.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from vitc.errors import VitcError
from vitc.names import BRANCHES

__all__ = ["MOST", "DecodeOptions", "Detections", "decode", "strides_of"]

MOST: Final = 100
"""Boxes of an image, if nothing else is said."""

_HALF: Final = np.float32(0.5)


@dataclass(frozen=True)
class DecodeOptions:
    """What is kept.

    Attributes:
        score: A box is one where class times centreness is larger than that.
        overlap: A box whose intersection over union with a better one of its class is larger than
            that is left out.
        candidates: Best boxes before that.
        most: Boxes of an image.

    Raises:
        VitcError: If a value is out of range.
    """

    score: float = 0.05
    overlap: float = 0.6
    candidates: int = 1000
    most: int = MOST

    def __post_init__(self) -> None:
        for name in ("score", "overlap"):
            if not 0 <= getattr(self, name) <= 1:
                raise VitcError(f"{name} lies in [0, 1], found {getattr(self, name)}.")
        for name in ("candidates", "most"):
            if getattr(self, name) < 1:
                raise VitcError(f"{name} must be positive, found {getattr(self, name)}.")


@dataclass(frozen=True, eq=False)
class Detections:
    """Boxes of an image, the best first.

    Attributes:
        boxes: float32 [n, 4].
        scores: float32 [n].
        classes: int32 [n].
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    classes: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.scores)


def strides_of(outputs: Collection[str]) -> tuple[int, ...]:
    """Strides of the levels whose maps these outputs are, the finest first; none if they are not.

    Args:
        outputs: Names of all outputs of a network.
    """
    first = f"{BRANCHES[0]}_"
    told = [name.removeprefix(first) for name in outputs if name.startswith(first)]
    strides = sorted(int(text) for text in told if text.isdecimal() and text.isascii())
    wanted = {f"{branch}_{stride}" for branch in BRANCHES for stride in strides}
    return tuple(strides) if wanted == set(outputs) and 0 not in strides else ()


def decode(
    maps: Mapping[str, NDArray[np.float32]],
    strides: Sequence[int],
    size: tuple[int, int],
    options: DecodeOptions | None = None,
) -> Detections:
    """The boxes of one image.

    Of boxes with equal scores the one comes first that is on the finer level, then the one in the
    upper row, the left column, and the class of the smaller number. A place whose distances are not
    all finite has no box, nor has a score that is no number.

    Args:
        maps: What `vitc.models.tasks.detector.Detector` gives in eval mode, without the axis of
            images: ``classes_s`` [H, W, K], ``boxes_s`` [H, W, 4], ``centreness_s`` [H, W, 1].
        strides: s of each level, the finest first.
        size: Height and width of the image in pixels.
        options: What is kept.
    """
    chosen = options or DecodeOptions()
    parts = [_candidates(maps, stride, size, np.float32(chosen.score)) for stride in strides]
    boxes, scores, classes = (np.concatenate(each) for each in zip(*parts, strict=True))
    order = np.argsort(-scores, kind="stable")[: chosen.candidates]
    boxes, scores, classes = boxes[order], scores[order], classes[order]
    kept = _best(boxes, classes, np.float32(chosen.overlap), chosen.most)
    return Detections(boxes[kept], scores[kept], classes[kept])


def _candidates(
    maps: Mapping[str, NDArray[np.float32]],
    stride: int,
    size: tuple[int, int],
    least: np.float32,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int32]]:
    scores = maps[f"classes_{stride}"] * maps[f"centreness_{stride}"]
    told = np.isfinite(maps[f"boxes_{stride}"]).all(axis=2, keepdims=True)
    row, column, of = np.nonzero((scores > least) & told)
    left, top, right, bottom = maps[f"boxes_{stride}"][row, column].T
    x, y = ((place.astype(np.float32) + _HALF) * np.float32(stride) for place in (column, row))
    height, width = (np.float32(side) for side in size)
    zero = np.float32(0)
    boxes = np.stack(
        [
            np.maximum(x - left, zero),
            np.maximum(y - top, zero),
            np.minimum(x + right, width),
            np.minimum(y + bottom, height),
        ],
        axis=1,
    )
    return boxes, scores[row, column, of], of.astype(np.int32)


def _best(
    boxes: NDArray[np.float32], classes: NDArray[np.int32], overlap: np.float32, most: int
) -> list[int]:
    x0, y0, x1, y1 = boxes.T
    areas = (x1 - x0) * (y1 - y0)
    alive = np.ones(len(boxes), bool)
    kept: list[int] = []
    zero = np.float32(0)
    for index in range(len(boxes)):
        if not alive[index]:
            continue
        kept.append(index)
        if len(kept) == most:
            break
        wide = np.maximum(np.minimum(x1, x1[index]) - np.maximum(x0, x0[index]), zero)
        high = np.maximum(np.minimum(y1, y1[index]) - np.maximum(y0, y0[index]), zero)
        common = wide * high
        union = (areas + areas[index]) - common
        alive &= ~((common > overlap * union) & (classes == classes[index]))
    return kept
