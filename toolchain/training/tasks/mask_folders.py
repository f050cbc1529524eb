"""Pictures in a folder, and in another their masks: 8-bit PNG whose values are classes.

``DIR/train`` or ``DIR/images/train`` has its masks in ``DIR/trainannot`` (as CamVid),
``DIR/masks/train``, ``DIR/annotations/train`` or ``DIR/train_labels``; likewise ``val``, ``test``.
``DIR/classes.txt``, if there is one, names the classes, a line each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitc.errors import VitcError
from vitc.models.picture import read_picture
from vitc.models.picture_files import find_pictures
from vitc.models.preprocessing import Preprocessing
from vitc.training.masks import by_name, check_size, open_mask
from vitc.training.tasks.examples import Example, FileExamples

__all__ = ["VOID", "MaskExamples", "MaskFolder", "find_masks", "read_labels"]

VOID: Final = 255
"""Value of pixels that belong to no class."""

_PICTURES: Final = ("{part}", "images/{part}")
_MASKS: Final = ("{part}annot", "masks/{part}", "annotations/{part}", "{part}_labels")
_MODES: Final = ("L", "P")
WITHOUT_PICTURE: Final = "masks without a picture"


@dataclass(frozen=True)
class MaskFolder:
    """Pictures of a part and their masks.

    Attributes:
        pairs: Picture and mask.
        left: What was left out, and how often.
    """

    pairs: tuple[tuple[Path, Path], ...]
    left: dict[str, int] = field(default_factory=dict)


def find_masks(folder: Path, part: str) -> MaskFolder | None:
    """The pictures of a part with their masks; None if there is no such part.

    Raises:
        VitcError: If a picture has no mask, or two; it is named.
    """
    found = [folder / pattern.format(part=part) for pattern in _PICTURES]
    pictures = next((path for path in found if path.is_dir()), None)
    if pictures is None:
        return None
    looked = [folder / pattern.format(part=part) for pattern in _MASKS]
    masks = next((path for path in looked if path.is_dir()), None)
    if masks is None:
        raise VitcError(
            f"{pictures} holds pictures, and there are no masks of them: no "
            f"{', '.join(str(path) for path in looked[:2])}.",
            "Put masks of the same names into one of these.",
        )
    known = by_name(masks)
    pairs, seen = [], find_pictures(pictures)
    for picture in seen.files:
        name = picture.relative_to(pictures).with_suffix("")
        if name not in known:
            raise VitcError(
                f"{picture} has no mask: there is no {masks / name}.png.",
                "Add the mask, or remove the picture.",
            )
        pairs.append((picture, known.pop(name)))
    if not pairs:
        raise VitcError(f"{pictures} holds no pictures.", "Add some.")
    left = dict(seen.left)
    if known:
        left[WITHOUT_PICTURE] = len(known)
    return MaskFolder(tuple(pairs), left)


def read_labels(folder: Path, train: MaskFolder, void: int) -> tuple[str, ...]:
    """Names of the classes: ``classes.txt``, or the numbers up to the largest of the masks.

    Raises:
        VitcError: If names are used twice, there are none, or a mask cannot be read.
    """
    file = folder / "classes.txt"
    if not file.exists():
        largest = max(
            int(values[(values != void) & (values != VOID)].astype(np.int64).max(initial=-1))
            for values in (read_mask(mask) for _, mask in train.pairs)
        )
        names = [str(value) for value in range(largest + 1)]
    else:
        try:
            if not file.is_file():
                raise OSError("it is no file")
            lines = file.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise VitcError(f"{file} cannot be read: {error}.", "Write it as UTF-8.") from error
        names = [line.strip() for line in lines if line.strip()]
    if len(set(names)) != len(names) or len(names) < 2:
        raise VitcError(
            f"{file if file.exists() else folder} has {len(names)} classes, "
            f"{len(set(names))} different.",
            "Give two or more, each a name of its own.",
        )
    return tuple(names)


def read_mask(path: Path) -> NDArray[np.uint8]:
    """The values of a mask [H, W].

    Raises:
        VitcError: If it cannot be read, or has colours.
    """
    with open_mask(path, _MODES) as image:
        return np.array(image, np.uint8)


class MaskExamples(FileExamples):
    """Pictures with masks, or some of them.

    Args:
        folder: Pictures and masks.
        labels: Names of the classes.
        preprocessing: How pictures become inputs.
        void: Value of pixels that belong to no class, beside `VOID`.
        chosen: Numbers of the pictures; all by default.
    """

    def __init__(
        self,
        folder: MaskFolder,
        labels: Sequence[str],
        preprocessing: Preprocessing,
        void: int = VOID,
        chosen: Sequence[int] | None = None,
    ) -> None:
        self.pairs = folder.pairs if chosen is None else [folder.pairs[i] for i in chosen]
        self.void = void
        super().__init__([str(picture) for picture, _ in self.pairs], labels, preprocessing)

    def read(self, index: int) -> Example:
        """See `FileExamples.read`."""
        picture, file = self.pairs[index]
        pixels = read_picture(picture, self.preprocessing.background)
        values = read_mask(file)
        check_size(file, (values.shape[1], values.shape[0]), pixels.size)
        void = (values == self.void) | (values == VOID)
        wrong = values[~void & (values >= len(self.labels))]
        if len(wrong):
            raise VitcError(
                f"The mask {file} has the value {wrong[0]}, and there are {len(self.labels)} "
                "classes, from 0.",
                "Name all classes in classes.txt, or say by --void which value is none.",
            )
        mask = np.where(void, -1, values.astype(np.int64))
        placed = self.preprocessing.placement(*pixels.size)
        made = np.asarray(self.preprocessing.crop_centre(pixels))
        height, width = made.shape[:2]
        left, top = placed.corner
        large = Image.fromarray(mask.astype(np.int32)).resize(
            placed.resized, Image.Resampling.NEAREST
        )
        cut = np.array(large.crop((left, top, left + width, top + height)), np.int64)
        nothing = np.zeros((0, 4)), np.zeros(0, np.int64), np.zeros(0, bool)
        return Example(made, *nothing, cut)
