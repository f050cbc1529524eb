"""Pictures without labels, seen through random crops.

A crop follows from the seed, the epoch and the picture alone, so neither batches nor processes
change it, and a resumed run repeats an uninterrupted one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vitc.errors import VitcError
from vitc.models.picture import SUFFIXES, read_picture
from vitc.models.picture_files import counted, find_pictures
from vitc.models.preprocessing import Preprocessing
from vitc.training.class_folders import folders_below
from vitc.training.data import DIGITS
from vitc.training.parts import load_parts

__all__ = ["Crops", "Pictures", "Source", "crop_box", "find_sources"]

_KEPT_BYTES: Final = 1 << 30
_FINER: Final = 2
"""Pictures are kept at most so many times as large as crops."""

_TRIES: Final = 10
_ASPECT: Final = (3 / 4, 4 / 3)
_HALF: Final = 0.5
_NAMED: Final = 8


@dataclass(frozen=True)
class Source:
    """A picture.

    Attributes:
        name: For messages.
        read: Its upright RGB.
    """

    name: str
    read: Callable[[], Image.Image]


@dataclass(frozen=True)
class Crops:
    """How pictures are cropped: as RandomResizedCrop of torchvision does, bicubic, then mirrored.

    Attributes:
        size: Height and width of a crop, pixels.
        least: Share of the picture's area that a crop has at least.
        mirrored: Whether half of them are mirrored.
        seed: Of the run.
    """

    size: tuple[int, int]
    least: float
    mirrored: bool
    seed: int

    def of(self, picture: Image.Image, epoch: int, index: int) -> Image.Image:
        """The crop of a picture in an epoch.

        Args:
            picture: Upright RGB.
            epoch: Counted from 0.
            index: Of the picture.
        """
        source = ((self.seed * 100_003 + epoch) * 1_000_033 + index) % (1 << 63)
        chance = torch.rand(_TRIES + 1, 4, generator=torch.Generator().manual_seed(source))
        box = crop_box(picture.width, picture.height, self.least, chance[1:].tolist())
        size = self.size[1], self.size[0]
        crop = picture.resize(size, Image.Resampling.BICUBIC, box)
        if self.mirrored and float(chance[0, 0]) < _HALF:
            crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return crop


def crop_box(
    width: int, height: int, least: float, chance: Sequence[Sequence[float]]
) -> tuple[int, int, int, int]:
    """A random part of a picture; the largest one of a fitting shape if none is found.

    Args:
        width: Of the picture.
        height: Of the picture.
        least: Smallest share of its area.
        chance: For each try four numbers in [0, 1): area, shape, place across and down.

    Returns:
        Left, upper, right, lower.
    """
    low, high = (math.log(value) for value in _ASPECT)
    for area, shape, across, down in chance:
        wanted = width * height * (least + (1 - least) * area)
        aspect = math.exp(low + (high - low) * shape)
        w, h = round(math.sqrt(wanted * aspect)), round(math.sqrt(wanted / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, upper = int(across * (width - w + 1)), int(down * (height - h + 1))
            return left, upper, left + w, upper + h
    aspect = min(max(width / height, _ASPECT[0]), _ASPECT[1])
    w, h = min(width, round(height * aspect)), min(height, round(width / aspect))
    left, upper = (width - w) // 2, (height - h) // 2
    return left, upper, left + w, upper + h


class Pictures:
    """Crops of pictures; see `vitc.training.data.Examples`.

    Every picture is read once when this is made, so a broken one is found before the work. They are
    kept in memory, no finer than crops need, if all of them fit into 1 GiB.

    Args:
        sources: The pictures.
        crops: How they are cropped.
        skip_broken: Whether to leave out those that cannot be read, rather than to stop.
        say: Told what is being done, and what is left out.

    Attributes:
        names: Of the pictures.
        in_memory: Whether they are kept.
        epoch: Whose crops are given, counted from 0.

    Raises:
        VitcError: If pictures cannot be read, which are named; or there are none.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        crops: Crops,
        *,
        skip_broken: bool = False,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.crops = crops
        self.epoch = 0
        room = math.prod(crops.size) * _FINER**2 * 3
        self.in_memory = len(sources) * room <= _KEPT_BYTES
        self._kept: list[Image.Image] = []
        self._sources: list[Source] = []
        broken: list[VitcError] = []
        for source in sources:
            try:
                picture = self._fine(source)
            except VitcError as error:
                broken.append(error)
                continue
            self._sources.append(source)
            if self.in_memory:
                self._kept.append(picture)
        self.names = tuple(source.name for source in self._sources)
        if broken:
            more = len(broken) - _NAMED
            told = " ".join(error.message for error in broken[:_NAMED])
            told += f" So are {more} more." if more > 0 else ""
            if not skip_broken:
                raise VitcError(told, "Replace or remove them, or leave them out by --skip-broken.")
            say(f"left out {len(broken)} pictures that cannot be read: {told}")
        if not self._sources:
            raise VitcError("There is no picture that can be read.", "Name another folder.")

    def __len__(self) -> int:
        return len(self._sources)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor]:
        """Crops of pictures, uint8 [B, 3, H, W]."""
        pixels = np.stack(
            [np.asarray(self.crops.of(self._picture(i), self.epoch, i)) for i in indices]
        )
        return (torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(),)

    def _picture(self, index: int) -> Image.Image:
        return self._kept[index] if self.in_memory else self._fine(self._sources[index])

    def _fine(self, source: Source) -> Image.Image:
        """A picture, its shorter side at most `_FINER` times that of crops."""
        picture = source.read()
        scale = _FINER * max(self.crops.size) / min(picture.size)
        if scale < 1:
            width, height = (max(1, round(side * scale)) for side in picture.size)
            picture = picture.resize((width, height), Image.Resampling.BICUBIC)
        return picture


def find_sources(
    spec: str,
    preprocessing: Preprocessing,
    *,
    every: bool = False,
    note: Callable[[str], None] = lambda _: None,
) -> list[Source]:
    """Find pictures to learn from without labels.

    Where a folder has parts, or class folders, they are those that `vitc.training.parts` has for
    training: what a network is judged by later is kept apart here too.

    Args:
        spec: ``digits``, or a folder with pictures at any depth.
        preprocessing: Gives the background, and the size of the digits.
        every: Whether to take all of the folder's pictures.
        note: Told what is left out.

    Raises:
        VitcError: If there is no such folder or no picture in it.
    """
    if spec == DIGITS:
        digits = load_parts(spec, preprocessing).train

        def shown(index: int) -> Callable[[], Image.Image]:
            return lambda: Image.fromarray(digits.pixels(index))

        return [Source(name, shown(index)) for index, name in enumerate(digits.names)]
    folder = Path(spec)
    if not folder.is_dir():
        raise VitcError(
            f"There is no data folder {folder}.", f"Name a folder of images, or {DIGITS!r}."
        )
    found = find_pictures(folder)
    if not found.files:
        others = f"; it has {counted(found.left)}" if found.left else ""
        raise VitcError(
            f"{folder} holds no images{others}.",
            f"Wanted files ending in {', '.join(sorted(SUFFIXES))}.",
        )
    if found.left:
        note(f"left out of {folder}: {counted(found.left)}")
    files = found.files if every else _to_learn_from(folder, preprocessing, found.files)
    if len(files) < len(found.files):
        note(
            f"{len(files)} of {len(found.files)} pictures are learnt from; the others are what "
            f"networks are judged by (--all takes every picture)"
        )

    def read(file: Path) -> Callable[[], Image.Image]:
        return lambda: read_picture(file, preprocessing.background)

    return [Source(str(file), read(file)) for file in files]


def _to_learn_from(
    folder: Path, preprocessing: Preprocessing, files: tuple[Path, ...]
) -> tuple[Path, ...]:
    below = folders_below(folder)
    split = "train" in below and ("test" in below or "val" in below)
    own = find_pictures(below["train"]).files if split else files
    try:
        parts = load_parts(str(folder), preprocessing)
    except VitcError:  # no class folders: no network is judged by these
        return own
    if not split and (len(parts.train.labels) < 2 or find_pictures(folder, deep=False).files):
        return own
    return tuple(Path(name) for name in parts.train.names)
