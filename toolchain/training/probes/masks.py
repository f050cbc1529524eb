"""Pictures with masks of their pixels' classes, in a folder.

Three forms are known, tried in this order:

- ``train/`` and ``trainannot/``, ``test/`` and ``testannot/`` (or ``val/`` and ``valannot/``), as
  CamVid is handed on: a picture and its mask have the same name but for the suffix;
- ``images/`` and ``masks/``, in the same way;
- pictures with transparency, in ``images/`` or in the folder itself: class 1 is what is opaque.

Where there is no part for testing, every fifth picture is one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from vitc.errors import VitcError
from vitc.models.described import both
from vitc.models.picture import read_picture
from vitc.models.picture_files import find_pictures
from vitc.models.preprocessing import Preprocessing
from vitc.training.masks import by_name, check_size, open_image, open_mask

__all__ = ["MaskedPictures", "find_masked"]

_TEST_EVERY: Final = 5
_HALF: Final = 128
_WHITE: Final = 255
_MODES: Final = ("1", "L", "P")
_ANNOTATED: Final = "annot"
_FORMS: Final = "train/ and trainannot/, images/ and masks/, or pictures with transparency"


@dataclass(frozen=True)
class MaskedPictures:
    """Pictures and where the classes of their pixels are.

    Attributes:
        pictures: Files.
        masks: Files of the same number; None where the pictures' transparency tells.
        preprocessing: Of the network. The whole picture is resized to its crop, so that no pixel of
            the mask is lost.
    """

    pictures: tuple[Path, ...]
    masks: tuple[Path, ...] | None
    preprocessing: Preprocessing

    def __len__(self) -> int:
        return len(self.pictures)

    def images(self, batch_size: int) -> Iterator[Tensor]:
        """Batches of normalised images, fp32 [B, 3, H, W].

        Raises:
            VitcError: If one cannot be read; it is named.
        """
        height, width = both(self.preprocessing.crop)
        for start in range(0, len(self), batch_size):
            pixels = [
                np.asarray(
                    read_picture(file, self.preprocessing.background).resize(
                        (width, height), Image.Resampling.BICUBIC
                    )
                )
                for file in self.pictures[start : start + batch_size]
            ]
            yield torch.from_numpy(self.preprocessing.normalise(np.stack(pixels)))

    def mask(self, index: int, size: tuple[int, int] | None = None) -> Tensor:
        """Classes of the pixels of a picture.

        Args:
            index: Of the picture.
            size: Height and width, if not its own.

        Returns:
            int64 [H, W].

        Raises:
            VitcError: If it cannot be read or does not fit its picture.
        """
        mask = self._read(index)
        if size is not None:
            mask = mask.resize((size[1], size[0]), Image.Resampling.NEAREST)
        values: NDArray[np.int64] = np.asarray(mask).astype(np.int64)
        return torch.from_numpy(values)

    def _read(self, index: int) -> Image.Image:
        if self.masks is None:
            with open_image(self.pictures[index]) as image:
                alpha = ImageOps.exif_transpose(image).convert("RGBA").getchannel("A")
            return Image.fromarray((np.asarray(alpha) >= _HALF).astype(np.uint8))
        with open_mask(self.masks[index], _MODES) as image:
            mask = image.point(lambda value: value // _WHITE, "L") if image.mode == "1" else image
        picture = read_picture(self.pictures[index], self.preprocessing.background)
        check_size(self.masks[index], mask.size, picture.size)
        return mask


def find_masked(
    folder: Path, preprocessing: Preprocessing
) -> tuple[MaskedPictures, MaskedPictures]:
    """Find pictures and their masks.

    Args:
        folder: See the top of this file.
        preprocessing: Of the network.

    Returns:
        What to learn from, and what to judge by.

    Raises:
        VitcError: If the folder has none of the forms, or a picture has no mask.
    """
    if not folder.is_dir():
        raise VitcError(
            f"There is no folder {folder}.", f"A dense probe needs a folder with {_FORMS}."
        )

    def made(pictures: Sequence[Path], masks: Sequence[Path] | None) -> MaskedPictures:
        return MaskedPictures(
            tuple(pictures), None if masks is None else tuple(masks), preprocessing
        )

    if (folder / f"train{_ANNOTATED}").is_dir():
        test = "test" if (folder / f"test{_ANNOTATED}").is_dir() else "val"
        parts = [
            made(*_paired(folder / part, folder / f"{part}{_ANNOTATED}"))
            for part in ("train", test)
        ]
        return parts[0], parts[1]
    masks: Sequence[Path] | None = None
    if (folder / "masks").is_dir():
        pictures, masks = _paired(folder / "images", folder / "masks")
    else:
        inside = folder / "images"
        found = find_pictures(inside if inside.is_dir() else folder).files
        pictures = [file for file in found if _transparent(file)]
        if not pictures:
            raise VitcError(
                f"{folder} has no masks.", f"A dense probe needs a folder with {_FORMS}."
            )
    if len(pictures) < _TEST_EVERY:
        raise VitcError(
            f"{folder} has {len(pictures)} pictures with masks, wanted {_TEST_EVERY} or more.",
            "Add some.",
        )

    def part(of_test: bool) -> MaskedPictures:
        chosen = [
            i for i in range(len(pictures)) if (i % _TEST_EVERY == _TEST_EVERY - 1) == of_test
        ]
        return made(
            [pictures[i] for i in chosen], None if masks is None else [masks[i] for i in chosen]
        )

    return part(False), part(True)


def _paired(pictures: Path, masks: Path) -> tuple[list[Path], list[Path]]:
    """Pictures and their masks, whose names differ in the suffix at most."""
    shown, told = by_name(pictures), by_name(masks)
    if not shown:
        raise VitcError(f"{pictures} holds no pictures.", f"{masks} needs them beside it.")
    without = [str(file) for name, file in shown.items() if name not in told]
    if without:
        more = f" and {len(without) - 1} more" if len(without) > 1 else ""
        raise VitcError(
            f"{without[0]}{more} has no mask in {masks}.",
            "A mask has the name of its picture, whatever its suffix.",
        )
    return list(shown.values()), [told[name] for name in shown]


def _transparent(file: Path) -> bool:
    with open_image(file) as image:
        return image.has_transparency_data
