"""Grids of pictures, each as it should be and as a network sees it, because people look."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitc.runtime.detection import Detections
from vitc.runtime.overlay import with_boxes, with_mask
from vitc.training.tasks.data import BACKGROUND
from vitc.training.tasks.examples import Example

__all__ = ["draw_boxes", "draw_masks"]

_SIDE: Final = 256
_COLUMNS: Final = 2
_GAP: Final = 6
_SCORE: Final = 0.2
"""Least score of a box that is drawn."""


def draw_boxes(
    wanted: Sequence[Example], found: Sequence[Detections], labels: Sequence[str]
) -> bytes:
    """PNG: pairs of what is there and what was found, side by side."""
    pairs = []
    for example, each in zip(wanted, found, strict=True):
        picture, scale = _large(example.pixels)
        sure = each.scores >= _SCORE
        told = [
            f"{labels[k]} {score:.2f}"
            for k, score in zip(each.classes[sure], each.scores[sure], strict=True)
        ]
        pairs.append(
            (
                with_boxes(
                    picture,
                    example.boxes * scale,
                    example.classes.tolist(),
                    [labels[k] for k in example.classes],
                ),
                with_boxes(picture, each.boxes[sure] * scale, each.classes[sure].tolist(), told),
            )
        )
    return _grid(pairs)


def draw_masks(
    wanted: Sequence[Example], found: Sequence[NDArray[np.integer]], labels: Sequence[str]
) -> bytes:
    """PNG: pairs of the mask and what was found, side by side."""
    hidden = labels.index(BACKGROUND) if BACKGROUND in labels else None
    pairs = []
    for example, each in zip(wanted, found, strict=True):
        picture = Image.fromarray(example.pixels)
        mask = each if example.mask is None else example.mask
        pair = tuple(with_mask(picture, values, hidden=hidden) for values in (mask, each))
        pairs.append((_large(np.asarray(pair[0]))[0], _large(np.asarray(pair[1]))[0]))
    return _grid(pairs)


def _large(pixels: NDArray[np.uint8]) -> tuple[Image.Image, float]:
    picture = Image.fromarray(pixels)
    scale = max(1, round(_SIDE / max(picture.size)))
    size = picture.width * scale, picture.height * scale
    return picture.resize(size, Image.Resampling.NEAREST), float(scale)


def _grid(pairs: Sequence[tuple[Image.Image, Image.Image]]) -> bytes:
    width, height = pairs[0][0].size
    rows = -(-len(pairs) // _COLUMNS)
    whole = Image.new(
        "RGB",
        (_COLUMNS * (2 * width + 3 * _GAP), rows * (height + _GAP) + _GAP),
        (255, 255, 255),
    )
    for index, pair in enumerate(pairs):
        row, column = divmod(index, _COLUMNS)
        left, top = column * (2 * width + 3 * _GAP) + _GAP, row * (height + _GAP) + _GAP
        for place, picture in enumerate(pair):
            whole.paste(picture, (left + place * (width + _GAP), top))
    content = io.BytesIO()
    whole.save(content, format="png")
    return content.getvalue()
