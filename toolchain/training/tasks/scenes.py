"""Scenes made of handwritten digits: boxes and masks are known exactly, nothing is downloaded.

A scene shows 1 to 6 digits of scikit-learn, of random size and place. It follows from the part, the
seed and its number alone. In the variant `MARKED` 3 to 5 digits are coloured, and a digit counts
only if a square of its colour stands in a corner, far away: what a place is then depends on places
that a few convolutions do not see. Nothing else tells: every colour has a corner, digits keep away
from that of their colour, and it is empty if they do not count. Some 4 of 10 count.
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

_SHOWN: Final = {PLAIN: (1, 6), MARKED: (3, 5)}
_CELL: Final = (16 / 64, 30 / 64)
_INK: Final = 0.4
_COLOURS: Final = np.array(
    [(255, 70, 60), (70, 220, 80), (80, 130, 255), (250, 220, 60)], np.float32
)
_MARK: Final = 1 / 8
_MARKED: Final = 0.2
"""Of the colours, beside one that is always marked."""

_PLACES: Final = 16
"""Free places of which a digit takes the one farthest from the mark of its colour."""


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
    shown = int(random.integers(_SHOWN[variant][0], _SHOWN[variant][1] + 1))
    marks = _marks(random, canvas, taken, shown) if marked else []
    boxes, classes, counts = [], [], []
    for number in range(shown):
        which = int(random.integers(len(inks)))
        side = round(float(random.uniform(*_CELL)) * min(size))
        mark = marks[number % len(marks)] if marked else None
        place = _free(random, taken, side, None if mark is None else mark.middle)
        if place is None:
            continue
        top, left = place
        drawn = Image.fromarray(inks[which]).resize((side, side), Image.Resampling.BICUBIC)
        ink = np.clip(np.asarray(drawn), 0, 1)
        inked = ink > _INK
        rows, columns = (np.flatnonzero(inked.any(axis=axis)) for axis in (1, 0))
        if not len(rows):
            continue
        paint = np.full(3, random.uniform(150, 255), np.float32) if mark is None else mark.colour
        window = canvas[top : top + side, left : left + side]
        window += ink[..., None] * (paint - window)
        taken[top : top + side, left : left + side] = True
        counts.append(mark is None or mark.shown)
        boxes.append([left + columns[0], top + rows[0], left + columns[-1] + 1, top + rows[-1] + 1])
        classes.append(int(digits[which]))
        if counts[-1]:
            mask[top : top + side, left : left + side][inked] = digits[which] + 1
    chosen = np.array(counts, bool)
    return Scene(
        np.clip(np.rint(canvas), 0, 255).astype(np.uint8),
        np.array(boxes, np.float64).reshape(-1, 4)[chosen],
        np.array(classes, np.int64)[chosen],
        mask,
    )


@dataclass(frozen=True, eq=False)
class _Mark:
    """A place for the square of a colour, which may be empty."""

    colour: NDArray[np.float32]
    middle: tuple[float, float]
    shown: bool


def _marks(
    random: np.random.Generator, canvas: NDArray[np.float32], taken: NDArray[np.bool_], digits: int
) -> list[_Mark]:
    """Put marks into the corners of a scene of so many digits.

    The i-th digit is to have the colour of the i-th mark, modulo their number.
    """
    side = round(_MARK * min(canvas.shape[:2]))
    wanted = random.random(len(_COLOURS)) < _MARKED
    wanted[random.integers(digits) % len(_COLOURS)] = True
    marks = []
    corners = random.permutation(len(_COLOURS))
    for corner, colour, shown in zip(corners, random.permutation(_COLOURS), wanted, strict=True):
        top, left = (
            int(end) * (whole - side)
            for end, whole in zip((corner // 2, corner % 2), taken.shape, strict=True)
        )
        if shown:
            canvas[top : top + side, left : left + side] = colour
        taken[top : top + side, left : left + side] = True
        marks.append(_Mark(colour, (top + side / 2, left + side / 2), bool(shown)))
    return marks


def _free(
    random: np.random.Generator,
    taken: NDArray[np.bool_],
    side: int,
    away: tuple[float, float] | None = None,
) -> tuple[int, int] | None:
    """A random place for a square where nothing stands, far from `away`; None if there is none."""
    total = np.zeros([whole + 1 for whole in taken.shape], np.int64)
    total[1:, 1:] = taken.cumsum(axis=0).cumsum(axis=1)
    below, above = total[side:], total[:-side]
    within = below[:, side:] - below[:, :-side] - above[:, side:] + above[:, :-side]
    free = np.flatnonzero(within == 0)
    if not len(free):
        return None
    drawn = free[random.integers(len(free), size=1 if away is None else _PLACES)]
    places = np.stack(np.divmod(drawn, within.shape[1]), axis=1)
    if away is not None:
        far = np.abs(places + side / 2 - away).max(axis=1)
        places = places[np.argmax(far)][None]
    top, left = places[0]
    return int(top), int(left)
