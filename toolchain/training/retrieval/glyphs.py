"""`glyphs`: symbols of the DejaVu font drawn in colours, sizes and places, with captions.

The font comes with matplotlib and the names are those of Unicode ("a small red black chess knight
at the left"), so these data need no file. An epoch draws combinations anew; those of a symbol and a
colour that are held out are never drawn for training, so a test asks for what was not seen.
"""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Final
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from vitc.models.preprocessing import Preprocessing
from vitc.names import GLYPHS
from vitc.training.retrieval.captioned import Captioned

__all__ = ["COLOURS", "PLACES", "SIZES", "Glyph", "Glyphs", "symbols"]

COLOURS: Final[Mapping[str, tuple[int, int, int]]] = MappingProxyType(
    {
        "red": (210, 30, 30),
        "orange": (240, 140, 20),
        "yellow": (225, 205, 30),
        "green": (40, 160, 50),
        "blue": (40, 70, 215),
        "purple": (130, 50, 170),
        "pink": (240, 120, 180),
        "brown": (120, 75, 35),
        "grey": (130, 130, 130),
        "black": (15, 15, 15),
    }
)
"""Name to red, green and blue, from which a drawing differs by a little."""

SIZES: Final[Mapping[str, float]] = MappingProxyType({"small": 0.4, "big": 0.7})
"""Name to the share of the picture's side that the symbol's longer side takes."""

PLACES: Final[Mapping[str, tuple[float, float]]] = MappingProxyType(
    {
        "in the middle": (0.5, 0.5),
        "at the left": (0.0, 0.5),
        "at the right": (1.0, 0.5),
        "at the top": (0.5, 0.0),
        "at the bottom": (0.5, 1.0),
    }
)
"""Name to where it stands: 0 is the left or upper border, 1 the other."""

_SYMBOLS: Final = frozenset({"So", "Sm", "Sc"})
"""Categories of Unicode: other symbols, mathematical ones, and currencies."""

_SIDE: Final = 64
_HELD_OUT: Final = 8
_TRAINING: Final = 4096
_VALIDATION: Final = 256
_TEST: Final = 500
_PARTS: Final = 2**20
"""Seeds of validation and test begin here, behind all epochs."""


@dataclass(frozen=True)
class Glyph:
    """One drawing.

    Attributes:
        symbol: The character.
        colour: Key of `COLOURS`.
        size: Key of `SIZES`.
        place: Key of `PLACES`.
        seed: Of what no caption says: shades, and the place up to a little.
    """

    symbol: str
    colour: str
    size: str
    place: str
    seed: int

    @property
    def caption(self) -> str:
        """Such as ``a small red black chess knight at the left``."""
        name = unicodedata.name(self.symbol).lower()
        return f"a {self.size} {self.colour} {name} {self.place}"

    @property
    def held_out(self) -> bool:
        """Whether no training sees this symbol in this colour."""
        return crc32(f"{self.symbol}/{self.colour}".encode()) % _HELD_OUT == 0

    def draw(self) -> Image.Image:
        """The picture, RGB."""
        chance = random.Random(self.seed)  # noqa: S311 - drawings, no secrets
        ground = tuple(chance.randrange(225, 256) for _ in range(3))
        ink = tuple(
            min(max(level + chance.randrange(-15, 16), 0), 255) for level in COLOURS[self.colour]
        )
        picture = Image.new("RGB", (_SIDE, _SIDE), ground)
        left, top, right, bottom = _box(self.symbol, _SIDE)
        share = SIZES[self.size] * chance.uniform(0.9, 1.1)
        points = _SIDE * _SIDE * share / max(right - left, bottom - top)
        font = _font(round(points))
        box = font.getbbox(self.symbol)
        width, height = box[2] - box[0], box[3] - box[1]
        x, y = (
            (_SIDE - size) * min(max(at + chance.uniform(-0.08, 0.08), 0), 1)
            for at, size in zip(PLACES[self.place], (width, height), strict=True)
        )
        ImageDraw.Draw(picture).text((x - box[0], y - box[1]), self.symbol, fill=ink, font=font)
        return picture

    def pixels(self, shown: Preprocessing) -> NDArray[np.uint8]:
        """The picture as a network takes it, uint8 [H, W, 3]."""
        return np.asarray(shown.crop_centre(self.draw()))


@cache
def _file() -> Path:
    from matplotlib import get_data_path  # slow to import, and other data do not need it

    return Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"


@cache
def _font(points: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(_file(), points, layout_engine=ImageFont.Layout.BASIC)


@cache
def _box(symbol: str, points: int) -> tuple[float, float, float, float]:
    return _font(points).getbbox(symbol)


@cache
def symbols() -> tuple[str, ...]:
    """The symbols of the font that leave ink, in the order of their code points."""
    from matplotlib.ft2font import FT2Font

    known = sorted(map(chr, FT2Font(str(_file())).get_charmap()))
    named = (symbol for symbol in known if unicodedata.category(symbol) in _SYMBOLS)
    return tuple(symbol for symbol in named if _inked(*_box(symbol, _SIDE)))


def _inked(left: float, top: float, right: float, bottom: float) -> bool:
    return right > left and bottom > top


class Glyphs:
    """The data set; see `CaptionData`.

    Args:
        seed: Of what epochs draw; validation and test are the same for all.
    """

    spec = GLYPHS
    drawn = True
    turned = False

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.validation: Sequence[Captioned] = _captioned(_held_out(_PARTS, _VALIDATION))
        self.test: Sequence[Captioned] = _captioned(_held_out(_PARTS + 1, _TEST))

    @property
    def texts(self) -> Iterable[str]:
        """A caption of every symbol in some colour, size and place."""
        turns = (tuple(COLOURS), tuple(SIZES), tuple(PLACES))
        for number, symbol in enumerate(symbols()):
            colour, size, place = (names[number % len(names)] for names in turns)
            yield Glyph(symbol, colour, size, place, 0).caption

    def train(self, epoch: int) -> Sequence[Captioned]:
        """As `CaptionData.train`: combinations that are not held out, drawn for this epoch."""
        chance = random.Random((self.seed << 32) + epoch)  # noqa: S311
        free = (glyph for glyph in _endless(chance) if not glyph.held_out)
        return _captioned([next(free) for _ in range(_TRAINING)])


def _endless(chance: random.Random) -> Iterator[Glyph]:
    kinds = (symbols(), tuple(COLOURS), tuple(SIZES), tuple(PLACES))
    while True:
        symbol, colour, size, place = (chance.choice(names) for names in kinds)
        yield Glyph(symbol, colour, size, place, chance.getrandbits(32))


def _held_out(seed: int, count: int) -> list[Glyph]:
    """Held-out combinations, each caption once; those of other seeds are of other symbols."""
    found: dict[str, Glyph] = {}
    for glyph in _endless(random.Random(seed)):  # noqa: S311
        part = crc32(glyph.symbol.encode()) % 2
        if glyph.held_out and part == seed % 2:
            found.setdefault(glyph.caption, glyph)
        if len(found) == count:
            return list(found.values())
    raise AssertionError  # drawing has no end


def _captioned(glyphs: Sequence[Glyph]) -> list[Captioned]:
    return [
        Captioned(f"{GLYPHS}/{number:04d}", (glyph.caption,), glyph.pixels)
        for number, glyph in enumerate(glyphs)
    ]
