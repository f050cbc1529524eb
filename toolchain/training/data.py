"""Labelled images: the digits of scikit-learn, or a folder of images.

A folder holds one sub-folder per class, with images at any depth; ``train/`` and ``test/`` (or
``val/``) below it, if there are any, are taken as the split, otherwise a fifth of every class is
kept for testing. The split depends on nothing but the files, so training and a later check see the
same test images. With both ``test/`` and ``val/`` the test images are those of ``test/``, see
`vitc.training.parts`.
"""

from __future__ import annotations

import math
import os
import random
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils import data as torch_data

from vitc.errors import VitcError
from vitc.models.described import both
from vitc.models.picture import SUFFIXES
from vitc.models.picture_files import counted, find_pictures
from vitc.models.preprocessing import Preprocessing
from vitc.training.class_folders import Classes, folders_below, letters, read_classes

__all__ = ["DIGITS", "Dataset", "Examples", "Split", "batches", "load_dataset", "loader"]

Split: TypeAlias = Literal["train", "test", "all"]

DIGITS: Final = "digits"
_TEST_SHARE: Final = 0.2
_SPLIT_SEED: Final = 0
_KEPT_BYTES: Final = 1 << 30
_WORKERS: Final = 4


@dataclass(frozen=True)
class _Entry:
    name: str
    target: int | None
    pixels: Callable[[Preprocessing], NDArray[np.uint8]]


@dataclass(frozen=True)
class _Found:
    entries: list[_Entry]
    names: tuple[str, ...]
    left: Mapping[str, int] = field(default_factory=dict)


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
        left: What lies in the folder and is no image of any part, and how often.
    """

    def __init__(
        self,
        entries: Sequence[_Entry],
        labels: Sequence[str],
        preprocessing: Preprocessing,
        batch_size: int = 32,
        left: Mapping[str, int] | None = None,
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
        self.in_memory = len(self._entries) * math.prod(both(preprocessing.crop)) * 3 <= _KEPT_BYTES
        self.batch_size = batch_size
        self.left = dict(left or {})

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        images, targets = self.__getitems__([index])
        return images[0], targets[0]

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        pixels = np.stack([self.pixels(index) for index in indices])
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

    def pixels(self, index: int) -> NDArray[np.uint8]:
        """An image before it is normalised, uint8 [H, W, 3].

        Raises:
            VitcError: If it cannot be read; it is named.
        """
        kept = self._pixels[index]
        if kept is not None:
            return kept
        pixels = self._entries[index].pixels(self.preprocessing)
        if self.in_memory:
            self._pixels[index] = pixels
        return pixels


class Examples(Protocol):
    """What a loader reads.

    Attributes:
        in_memory: Whether an example costs no reading, so that no process needs to read ahead.
    """

    in_memory: bool

    def __len__(self) -> int: ...

    def __getitems__(self, indices: Sequence[int], /) -> Any:
        """A batch: a tuple whose first is a tensor with the examples along its first axis.

        Raises:
            VitcError: If an example cannot be read.
        """


class _Reporting(torch_data.Dataset[Any]):
    """Examples for a loader with processes of its own; `batches` unpacks what it gives.

    An exception that crosses from a process to another becomes a text of many lines, so a
    `VitcError` is handed over as a value.
    """

    def __init__(self, examples: Examples) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitems__(self, indices: Sequence[int]) -> Any:
        try:
            if not indices:  # a process beside others may have no share of the last batch
                return tuple(part[:0] for part in self.examples.__getitems__([0]))
            return self.examples.__getitems__(indices)
        except VitcError as error:
            return error


def _as_is(batch: Any) -> Any:
    return batch


def loader(
    examples: Examples,
    order: torch_data.Sampler[list[int]] | None = None,
    batch_size: int = 1,
) -> torch_data.DataLoader[Any]:
    """What reads batches; iterate over it by `batches`.

    Args:
        examples: To be read, ahead by processes of their own where they are not in memory.
        order: Indices of each batch; by default all in order, by `batch_size`.
        batch_size: Without `order`.
    """
    workers = 0 if examples.in_memory else min(_WORKERS, len(os.sched_getaffinity(0)))
    if order is not None:
        return torch_data.DataLoader(
            _Reporting(examples), batch_sampler=order, collate_fn=_as_is, num_workers=workers
        )
    return torch_data.DataLoader(
        _Reporting(examples), batch_size=batch_size, collate_fn=_as_is, num_workers=workers
    )


def batches(loader: Iterable[Any]) -> Iterator[Any]:
    """The batches of what `loader` made.

    Raises:
        VitcError: If an image cannot be read, whichever process reads it; or such a process ended.
    """
    try:
        for batch in loader:
            if isinstance(batch, VitcError):
                raise batch
            yield batch
    except RuntimeError as error:
        # The words of torch.utils.data, which has no type for it.
        if not str(error).startswith("DataLoader worker"):
            raise
        raise VitcError(
            f"A process that reads images ended: {str(error).partition(chr(10))[0]}",
            "Memory may have run out, or /dev/shm: use a smaller --batch-size.",
        ) from error


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
    found = _digits(split) if spec == DIGITS else _folder(Path(spec), split)
    entries, names = found.entries, found.names
    if labels is not None and names:
        entries = _mapped(spec, entries, names, labels)
        names = tuple(labels)
    if limit is not None and limit < len(entries):
        entries = [entries[i * len(entries) // limit] for i in range(limit)]
    return Dataset(entries, names, preprocessing, left=found.left)


def _mapped(
    spec: str, entries: list[_Entry], names: Sequence[str], labels: Sequence[str]
) -> list[_Entry]:
    unknown = sorted(set(names) - set(labels))
    composed = {unicodedata.normalize("NFC", label): label for label in labels}
    for name in unknown:
        twin = composed.get(unicodedata.normalize("NFC", name))
        if twin is not None:
            raise VitcError(
                f"{spec} has the class {name!r} in {letters(name)}, the network has it in "
                f"{letters(twin)}.",
                "Rename the folder as the network has it.",
            )
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


def _digits(split: Split) -> _Found:
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
    return _Found(entries, tuple(str(name) for name in digits.target_names))


def _folder(folder: Path, split: Split) -> _Found:
    if not folder.is_dir():
        raise VitcError(
            f"There is no data folder {folder}.",
            f"Name a folder of class folders of images, or {DIGITS!r}.",
        )
    below = folders_below(folder)
    held_out = below.get("test") or below.get("val")
    if "train" in below and held_out is not None:
        return _presplit(folder, below["train"], held_out, split)
    if "train" in below:
        _refuse_train_alone(folder, below)
    classes = read_classes(folder)
    if not classes.files:
        return _unlabelled(folder, classes, split)
    entries = []
    for target, (name, files) in enumerate(classes.files.items()):
        shuffled = random.Random(f"{_SPLIT_SEED}/{name}").sample(files, len(files))  # noqa: S311
        test = set(shuffled[: max(1, round(_TEST_SHARE * len(files)))])
        wanted = [f for f in files if split == "all" or (f in test) == (split == "test")]
        if split == "train" and not wanted:
            raise VitcError(
                f"The class folder {folder / name} has one image, which leaves none for training.",
                "Add images.",
            )
        entries += [_file_entry(f, target) for f in wanted]
    return _Found(entries, tuple(classes.files), classes.left)


def _refuse_train_alone(folder: Path, below: Mapping[str, Path]) -> None:
    """Refuse a folder that looks as if it were split, but has no part for testing."""
    train = below["train"]
    if find_pictures(train, deep=False).files or not read_classes(train).files:
        return  # a class of that name
    others = ", ".join(f"{name}/" for name in below if name != "train")
    raise VitcError(
        f"{folder} has train/ with class folders, but neither test/ nor val/"
        f"{f'; it has {others}' if others else ''}.",
        f"Add or rename one, or give {train}, of which a fifth is then kept for testing.",
    )


def _presplit(folder: Path, train: Path, test: Path, split: Split) -> _Found:
    classes = {"train": read_classes(train), "test": read_classes(test)}
    names = tuple(classes["train"].files)
    unknown = sorted(set(classes["test"].files) - set(names))
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
        for name, files in found.files.items()
        for file in files
    ]
    if not entries:
        raise VitcError(f"{test} holds no class folders with images.", "Add some.")
    left: Counter[str] = Counter()
    for found in classes.values():
        left.update(found.left)
        if found.loose:
            left["pictures in no class folder"] += len(found.loose)
    for name, other in folders_below(folder).items():
        count = 0 if name in ("train", "test", "val") else len(find_pictures(other).files)
        if count:
            left[f"pictures in {name}/"] += count
    return _Found(entries, names, left)


def _unlabelled(folder: Path, found: Classes, split: Split) -> _Found:
    if not found.loose:
        others = f"; it has {counted(found.left)}" if found.left else ""
        raise VitcError(
            f"{folder} holds no images and no class folders with images{others}.",
            f"Wanted files ending in {', '.join(sorted(SUFFIXES))}.",
        )
    if split != "all":
        raise VitcError(
            f"{folder} holds images but no class folders, so it has no classes.",
            "Put the images of each class into a folder named after it.",
        )
    return _Found([_file_entry(file, None) for file in found.loose], (), found.left)


def _file_entry(file: Path, target: int | None) -> _Entry:
    return _Entry(str(file), target, lambda preprocessing: preprocessing.read(file))
