"""Masks: image files, named as their pictures, whose values are the classes of pixels."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from PIL import Image

from vitc.errors import VitcError
from vitc.models.picture import FORMATS
from vitc.models.picture_files import find_pictures

__all__ = ["by_name", "check_size", "open_image", "open_mask"]


def by_name(folder: Path) -> dict[Path, Path]:
    """Image files below a folder, by their names there without a suffix.

    Raises:
        VitcError: If two differ in that only.
    """
    named: dict[Path, Path] = {}
    for file in find_pictures(folder).files:
        other = named.setdefault(file.relative_to(folder).with_suffix(""), file)
        if other != file:
            raise VitcError(
                f"{other} and {file} differ in the suffix only.",
                "Take one away: a mask has the name of its picture, whatever its suffix.",
            )
    return named


def open_image(file: Path) -> Image.Image:
    """An image as its file has it, read whole.

    Raises:
        VitcError: If it cannot be read.
    """
    try:
        image = Image.open(file, formats=FORMATS)
        image.load()
    except Exception as error:  # whatever a damaged file makes a decoder raise
        raise VitcError(
            f"The image {file} cannot be read: {error}.", "Replace the file, or remove it."
        ) from error
    return image


def open_mask(file: Path, modes: Collection[str]) -> Image.Image:
    """A mask whose mode is one of Pillow's `modes`.

    Raises:
        VitcError: If it cannot be read, or has another mode.
    """
    image = open_image(file)
    if image.mode not in modes:
        raise VitcError(
            f"The mask {file} is of mode {image.mode}.",
            "A mask has one channel of 8 bits, grey or palette; a pixel's value is its class.",
        )
    return image


def check_size(file: Path, mask: tuple[int, int], picture: tuple[int, int]) -> None:
    """Hold a mask to its picture; sizes are width and height.

    Raises:
        VitcError: If they differ.
    """
    if mask != picture:
        raise VitcError(
            f"The mask {file} is {mask[0]} x {mask[1]}, its picture {picture[0]} x {picture[1]}.",
            "Both must be of one size.",
        )
