"""Scenes made of handwritten digits: boxes and masks are known exactly, nothing is downloaded.

A scene shows 1 to 6 digits of scikit-learn, of random size and place. It follows from the part, the
seed and its number alone. In the variant `MARKED` digits are coloured, and a digit counts only if a
small square of its colour stands elsewhere in the scene, as far away as there is room: what a place
is then depends on places that a few convolutions do not see.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitc.names import SCENES

__all__ = ["DIGIT_LABELS", "MARKED", "SCENES", "Part", "Scene", "scene"]

Part: TypeAlias = Literal["train", "val", "test"]

PLAIN, MARKED = SCENES

DIGIT_LABELS: Final = tuple("0123456789")

_TEST_SHARE: Final = 0.2
_VALIDATION_SHARE: Final = 0.1
_SPLIT_SEED: Final = 0
_STREAMS: Final = {"train": 0, "val": 1, "test": 2}

_MOST: Final = 6
_CELL: Final = (16 / 64, 30 / 64)
_INK: Final = 0.4
_TRIES: Final = 20
_COLOURS: Final = np.array(
    [(255, 70, 60), (70, 220, 80), (80, 130, 255), (250, 220, 60)], np.float32
)
_MARK: Final = 1 / 10


@dataclass(frozen=True, eq=False)
class Scene:
    """A picture and what is in it.

    Attributes:
        pixels: uint8 [H, W, 3].
        boxes: float64 [n, 4], x0, y0, x1, y1 in pixels: tight around the ink.
        classes: int64 [n], digits.
        mask: uint8 [H, W]: 0 for no digit, else the digit + 1.
    """

    pixels: NDArray[np.uint8]
    boxes: NDArray[np.float64]
    classes: NDArray[np.int64]
    mask: NDArray[np.uint8]


@cache
def _digits(part: Part) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Ink in [0, 1] of the digits of a part [n, 8, 8], and which they are."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    rest, test = train_test_split(
        np.arange(len(digits.images)),
        test_size=_TEST_SHARE,
        random_state=_SPLIT_SEED,
        stratify=digits.target,
    )
    train, validation = train_test_split(
        rest,
        test_size=_VALIDATION_SHARE,
        random_state=_SPLIT_SEED,
        stratify=digits.target[rest],
    )
    chosen = np.sort({"train": train, "val": validation, "test": test}[part])
    return (digits.images[chosen] / 16).astype(np.float32), digits.target[chosen].astype(np.int64)


def scene(
    variant: str, part: Part, size: tuple[int, int], index: int, seed: int = 0, epoch: int = 0
) -> Scene:
    """One scene.

    Args:
        variant: One of `SCENES`.
        part: Whose digits are shown; no digit is in two parts.
        size: Height and width in pixels.
        index: Its number.
        seed: Another seed, other scenes.
        epoch: So that a part that is learnt from is new in every epoch.
    """
    random = np.random.default_rng([_STREAMS[part], seed, epoch, index])
    inks, digits = _digits(part)
    marked = variant == MARKED
    height, width = size
    canvas = np.full((height, width, 3), random.uniform(0, 60), np.float32)
    canvas += random.normal(0, 8, canvas.shape).astype(np.float32)
    mask = np.zeros(size, np.uint8)
    taken = np.zeros(size, bool)
    boxes, classes, colours = [], [], []
    for _ in range(random.integers(3 if marked else 1, _MOST + 1)):
        which = int(random.integers(len(inks)))
        side = round(float(random.uniform(*_CELL)) * min(size))
        place = _free(random, taken, (side, side))
        if place is None:
            continue
        top, left = place
        shown = Image.fromarray(inks[which]).resize((side, side), Image.Resampling.BICUBIC)
        ink = np.clip(np.asarray(shown), 0, 1)
        inked = ink > _INK
        rows, columns = (np.flatnonzero(inked.any(axis=axis)) for axis in (1, 0))
        if not len(rows):
            continue
        colour = int(random.integers(len(_COLOURS))) if marked else -1
        paint = _COLOURS[colour] if marked else np.full(3, random.uniform(150, 255), np.float32)
        window = canvas[top : top + side, left : left + side]
        window += ink[..., None] * (paint - window)
        taken[top : top + side, left : left + side] = True
        boxes.append([left + columns[0], top + rows[0], left + columns[-1] + 1, top + rows[-1] + 1])
        classes.append(int(digits[which]))
        colours.append(colour)
        mask[top : top + side, left : left + side][inked] = digits[which] + 1
    counts = np.ones(len(boxes), bool)
    if marked and boxes:
        counts = _mark(random, canvas, taken, np.array(boxes), np.array(colours))
        for box in np.array(boxes)[~counts]:
            mask[box[1] : box[3], box[0] : box[2]] = 0
    return Scene(
        np.clip(np.rint(canvas), 0, 255).astype(np.uint8),
        np.array(boxes, np.float64).reshape(-1, 4)[counts],
        np.array(classes, np.int64)[counts],
        mask,
    )


def _free(
    random: np.random.Generator, taken: NDArray[np.bool_], sides: tuple[int, int]
) -> tuple[int, int] | None:
    """A random place for a rectangle where nothing stands; None if none was found."""
    for _ in range(_TRIES):
        top, left = (
            int(random.integers(whole - side + 1))
            for whole, side in zip(taken.shape, sides, strict=True)
        )
        if not taken[top : top + sides[0], left : left + sides[1]].any():
            return top, left
    return None


def _mark(
    random: np.random.Generator,
    canvas: NDArray[np.float32],
    taken: NDArray[np.bool_],
    boxes: NDArray[np.int64],
    colours: NDArray[np.int64],
) -> NDArray[np.bool_]:
    """Put marks of some colours into the scene; returns which digits count."""
    wanted = random.random(len(_COLOURS)) < 0.5
    wanted[random.choice(colours)] = True
    side = max(3, round(_MARK * min(canvas.shape[:2])))
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2
    placed = np.zeros(len(_COLOURS), bool)
    for colour in np.flatnonzero(wanted):
        found = [_free(random, taken, (side, side)) for _ in range(_TRIES)]
        places = [place for place in found if place is not None]
        own = middles[colours == colour]
        if not places:
            continue
        near = [min((np.abs(own - (left, top)).max(axis=1)), default=0.0) for top, left in places]
        top, left = places[int(np.argmax(near))]
        canvas[top : top + side, left : left + side] = _COLOURS[colour]
        taken[top : top + side, left : left + side] = True
        placed[colour] = True
    counts: NDArray[np.bool_] = placed[colours]
    return counts
