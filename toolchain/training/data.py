"""Labelled images: the digits of scikit-learn, or a folder of images.

A folder holds one sub-folder per class; ``train/`` and ``test/`` (or ``val/``) below it, if there
are any, are taken as the split, otherwise a fifth of every class is kept for testing. The split
depends on nothing but the files, so training and a later check see the same test images. With
both ``test/`` and ``val/`` the test images are those of ``test/``, see `vitc.training.parts`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils import data as torch_data

from vitc.errors import VitcError
from vitc.models.config import Preprocessing

__all__ = ["DIGITS", "Dataset", "Split", "load_dataset"]

Split: TypeAlias = Literal["train", "test", "all"]

DIGITS: Final = "digits"
_TEST_SHARE: Final = 0.2
_SPLIT_SEED: Final = 0
_KEPT_BYTES: Final = 1 << 30
_IMAGE_SUFFIXES: Final = frozenset(
    (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
)


@dataclass(frozen=True)
class _Entry:
    name: str
    target: int | None
    pixels: Callable[[Preprocessing], NDArray[np.uint8]]


class Dataset(torch_data.Dataset[tuple[Tensor, Tensor]]):
    """Images as a network takes them, with their classes.

    Decoded pixels are kept in memory if all of them fit into 1 GiB.

    Attributes:
        names: One name per image, for messages.
        labels: Names of the classes; empty if the images have none.
        targets: int64 [len], class of each image; -1 if the images have none.
        preprocessing: How images become inputs.
        in_memory: Whether decoded pixels are kept.
        batch_size: Of `images`.
    """

    def __init__(
        self,
        entries: Sequence[_Entry],
        labels: Sequence[str],
        preprocessing: Preprocessing,
        batch_size: int = 32,
    ) -> None:
        self._entries = tuple(entries)
        self._pixels: list[NDArray[np.uint8] | None] = [None] * len(self._entries)
        self.names = tuple(entry.name for entry in self._entries)
        self.labels = tuple(labels)
        self.targets = torch.tensor(
            [-1 if entry.target is None else entry.target for entry in self._entries],
            dtype=torch.int64,
        )
        self.preprocessing = preprocessing
        self.in_memory = len(self._entries) * preprocessing.crop**2 * 3 <= _KEPT_BYTES
        self.batch_size = batch_size

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        images, targets = self.__getitems__([index])
        return images[0], targets[0]

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        pixels = np.stack([self._decoded(index) for index in indices])
        images = torch.from_numpy(self.preprocessing.normalise(pixels))
        return images, self.targets[list(indices)]

    @property
    def images(self) -> Iterator[Tensor]:
        """Batches of normalised images, float32 [B, 3, H, W], in order.

        Raises:
            VitcError: If an image cannot be read; it is named.
        """
        for start in range(0, len(self), self.batch_size):
            yield self.__getitems__(range(start, min(start + self.batch_size, len(self))))[0]

    def subset(self, indices: Sequence[int]) -> Dataset:
        """The images at `indices`, in that order, with the same classes."""
        entries = [self._entries[index] for index in indices]
        return Dataset(entries, self.labels, self.preprocessing, self.batch_size)

    def _decoded(self, index: int) -> NDArray[np.uint8]:
        kept = self._pixels[index]
        if kept is not None:
            return kept
        pixels = self._entries[index].pixels(self.preprocessing)
        if self.in_memory:
            self._pixels[index] = pixels
        return pixels


def load_dataset(
    spec: str,
    preprocessing: Preprocessing,
    split: Split = "all",
    labels: Sequence[str] | None = None,
    limit: int | None = None,
) -> Dataset:
    """Find labelled images.

    Args:
        spec: ``digits``, or a folder of class folders. With `split` "all" it may also be a folder
            of images without classes.
        preprocessing: How images become inputs.
        split: Which part.
        labels: Names of a network's classes; the folders then are mapped to those, whatever
            their order. By default the classes are the sorted folder names.
        limit: At most so many images, spread evenly over the part.

    Raises:
        VitcError: If there is no such folder, it holds no images, has too few classes, or a class
            is not among `labels`.
    """
    if limit is not None and limit < 1:
        raise VitcError(f"The number of images must be positive, found {limit}.")
    entries, names = _digits(split) if spec == DIGITS else _folder(Path(spec), split)
    if labels is not None and names:
        entries = _mapped(spec, entries, names, labels)
        names = tuple(labels)
    if limit is not None and limit < len(entries):
        entries = [entries[i * len(entries) // limit] for i in range(limit)]
    return Dataset(entries, names, preprocessing)


def _mapped(
    spec: str, entries: list[_Entry], names: Sequence[str], labels: Sequence[str]
) -> list[_Entry]:
    unknown = sorted(set(names) - set(labels))
    if unknown:
        raise VitcError(
            f"{spec} has classes that the network does not know: {', '.join(unknown[:8])}.",
            f"It knows {', '.join(list(labels)[:8])}{', ..' if len(labels) > 8 else ''}.",
        )
    index = {name: position for position, name in enumerate(labels)}
    return [
        _Entry(e.name, None if e.target is None else index[names[e.target]], e.pixels)
        for e in entries
    ]


def _digits(split: Split) -> tuple[list[_Entry], tuple[str, ...]]:
    # scikit-learn takes a second to import and a folder does not need it.
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    chosen = np.arange(len(pixels))
    if split != "all":
        parts = train_test_split(
            chosen, test_size=_TEST_SHARE, random_state=_SPLIT_SEED, stratify=digits.target
        )
        chosen = np.sort(parts[split == "test"])

    def shown(index: int) -> Callable[[Preprocessing], NDArray[np.uint8]]:
        image = Image.fromarray(pixels[index])
        return lambda preprocessing: np.asarray(preprocessing.crop_centre(image))

    entries = [_Entry(f"{DIGITS}/{i:04d}", int(digits.target[i]), shown(int(i))) for i in chosen]
    return entries, tuple(str(name) for name in digits.target_names)


def _folder(folder: Path, split: Split) -> tuple[list[_Entry], tuple[str, ...]]:
    if not folder.is_dir():
        raise VitcError(
            f"There is no data folder {folder}.",
            f"Name a folder of class folders of images, or {DIGITS!r}.",
        )
    below = {child.name: child for child in _visible(folder) if child.is_dir()}
    held_out = below.get("test") or below.get("val")
    if "train" in below and held_out is not None:
        return _presplit(below["train"], held_out, split)
    classes = _classes(folder)
    if not classes:
        return _unlabelled(folder, split)
    entries = []
    for target, (name, files) in enumerate(classes.items()):
        shuffled = random.Random(f"{_SPLIT_SEED}/{name}").sample(files, len(files))  # noqa: S311
        test = set(shuffled[: max(1, round(_TEST_SHARE * len(files)))])
        wanted = [f for f in files if split == "all" or (f in test) == (split == "test")]
        if split == "train" and not wanted:
            raise VitcError(
                f"The class folder {folder / name} has one image, which leaves none for training.",
                "Add images.",
            )
        entries += [_file_entry(f, target) for f in wanted]
    return entries, tuple(classes)


def _presplit(train: Path, test: Path, split: Split) -> tuple[list[_Entry], tuple[str, ...]]:
    classes = {"train": _classes(train), "test": _classes(test)}
    names = tuple(classes["train"])
    unknown = sorted(set(classes["test"]) - set(names))
    if not names or unknown:
        raise VitcError(
            f"{test} has classes that {train} lacks: {', '.join(unknown[:8])}."
            if unknown
            else f"{train} holds no class folders with images.",
            "Both need the same class folders.",
        )
    entries = [
        _file_entry(file, names.index(name))
        for part, found in classes.items()
        if split in (part, "all")
        for name, files in found.items()
        for file in files
    ]
    if not entries:
        raise VitcError(f"{test} holds no class folders with images.", "Add some.")
    return entries, names


def _unlabelled(folder: Path, split: Split) -> tuple[list[_Entry], tuple[str, ...]]:
    files = _image_files(folder)
    if not files:
        raise VitcError(
            f"{folder} holds no images and no class folders with images.",
            f"Wanted files ending in {', '.join(sorted(_IMAGE_SUFFIXES))}.",
        )
    if split != "all":
        raise VitcError(
            f"{folder} holds images but no class folders, so it has no classes.",
            "Put the images of each class into a folder named after it.",
        )
    return [_file_entry(file, None) for file in files], ()


def _visible(folder: Path) -> list[Path]:
    return sorted(child for child in folder.iterdir() if not child.name.startswith("."))


def _image_files(folder: Path) -> list[Path]:
    return [
        child
        for child in _visible(folder)
        if child.is_file() and child.suffix.lower() in _IMAGE_SUFFIXES
    ]


def _classes(folder: Path) -> dict[str, list[Path]]:
    found = {child.name: _image_files(child) for child in _visible(folder) if child.is_dir()}
    return {name: files for name, files in found.items() if files}


def _file_entry(file: Path, target: int | None) -> _Entry:
    return _Entry(str(file), target, lambda preprocessing: preprocessing.read(file))
