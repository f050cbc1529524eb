"""How an image becomes the input of a network."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitc.errors import VitcError
from vitc.models.described import (
    Sides,
    both,
    checked_sides,
    known_fields,
    number,
    shown,
    sides_text,
)
from vitc.models.picture import DECODING, WHITE, Colour, read_picture, upright_rgb

__all__ = [
    "SMALL_PICTURES",
    "Picture",
    "Placement",
    "Preprocessing",
    "colours_first",
    "is_picture",
]

Picture: TypeAlias = "str | os.PathLike[str] | Image.Image | NDArray[np.uint8]"
"""What becomes an input: a file, an image, or pixels [H, W, 3]."""

IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
IMAGENET_STD: Final = (0.229, 0.224, 0.225)

_INTERPOLATION: Final = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "nearest": Image.Resampling.NEAREST,
}


_MOST_PIXELS: Final = 1 << 26
"""Of a resized image, before its centre is cut out."""


def _level(value: object) -> bool:
    return type(value) is int and 0 <= value <= 255


@dataclass(frozen=True)
class Placement:
    """Where a network's input lies on a picture. All are width, height, or x, y, in pixels.

    Attributes:
        picture: Size of the upright picture.
        resized: Its size when it is resized.
        corner: Upper left corner of the input on the resized picture.
    """

    picture: tuple[int, int]
    resized: tuple[int, int]
    corner: tuple[int, int]

    def on_input(self, boxes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Boxes x0, y0, x1, y1 [.., 4] of the picture as pixels of the input."""
        found: NDArray[np.float64] = boxes * self._scale - np.tile(self.corner, 2)
        return found

    def mask_on_picture(self, mask: NDArray[np.int64]) -> NDArray[np.int64]:
        """Classes of the input's pixels [h, w] as those of the picture's; -1 beside the input."""
        places = []
        for axis, side in enumerate(mask.shape):
            own, resized, corner = (
                each[1 - axis] for each in (self.picture, self.resized, self.corner)
            )
            at = np.floor((np.arange(own) + 0.5) * resized / own - corner).astype(np.int64)
            places.append(np.where((at >= 0) & (at < side), at, side))
        bordered = np.pad(mask, ((0, 1), (0, 1)), constant_values=-1)
        found: NDArray[np.int64] = bordered[np.ix_(*places)]
        return found

    def on_picture(self, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Boxes x0, y0, x1, y1 [.., 4] of the input as pixels of the picture, cut where it ends."""
        found = (boxes.astype(np.float64) + np.tile(self.corner, 2)) / self._scale
        inside: NDArray[np.float64] = np.clip(found, 0, np.tile(self.picture, 2))
        return inside.astype(np.float32)

    @property
    def _scale(self) -> NDArray[np.float64]:
        scale: NDArray[np.float64] = np.tile(np.divide(self.resized, self.picture), 2)
        return scale


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes an input tensor.

    Attributes:
        resize: Length of the shorter side after resizing, pixels; or height and width of the box
            that the resized picture just covers.
        crop: Side of the centre crop, pixels, or its height and width; the image size of the
            network.
        interpolation: ``bicubic``, ``bilinear`` or ``nearest``.
        mean: Per channel, subtracted after scaling to [0, 1].
        std: Per channel, divided by.
        background: Colour below transparency, red, green and blue from 0 to 255.
        decoding: The rule by which a file becomes 8-bit RGB, see `vitc.models.picture`.
    """

    resize: Sides = 256
    crop: Sides = 224
    interpolation: str = "bicubic"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    background: Colour = WHITE
    decoding: str = DECODING

    def __post_init__(self) -> None:
        if not isinstance(self.interpolation, str) or self.interpolation not in _INTERPOLATION:
            raise VitcError(
                f"Unknown interpolation {shown(self.interpolation)}; known: "
                f"{', '.join(sorted(_INTERPOLATION))}."
            )
        for name in ("resize", "crop"):
            object.__setattr__(self, name, checked_sides(name, getattr(self, name)))
        if any(own > room for own, room in zip(both(self.crop), both(self.resize), strict=True)):
            raise VitcError(
                f"A centre crop of {sides_text(self.crop)} does not fit a shorter side of "
                f"{sides_text(self.resize)}."
            )
        channels = (self.mean, self.std)
        if not all(isinstance(c, tuple) and len(c) == 3 and all(map(number, c)) for c in channels):
            raise VitcError("mean and std need three numbers each.")
        if not all(s > 0 for s in self.std):
            raise VitcError("mean and std need three values each, and std must be positive.")
        ground = self.background
        if not (isinstance(ground, tuple) and len(ground) == 3 and all(map(_level, ground))):
            raise VitcError(
                f"background must be three integers from 0 to 255, found {shown(ground)}."
            )
        if self.decoding != DECODING:
            raise VitcError(
                f"Unknown decoding of pictures {shown(self.decoding)}; this vitc knows {DECODING}."
            )

    @classmethod
    def for_image_size(cls, image_size: Sides) -> Preprocessing:
        """The ImageNet evaluation of DeiT: crop ratio 0.875, so 224 from 256."""
        height, width = both(image_size)
        return cls(resize=(int(height / 0.875), int(width / 0.875)), crop=image_size)

    def scaled_to(self, image_size: Sides) -> Preprocessing:
        """The same for a network of another image size, with the same share cropped."""
        height, width = (
            round(box * size / own)
            for box, size, own in zip(
                both(self.resize), both(image_size), both(self.crop), strict=True
            )
        )
        return dataclasses.replace(self, resize=(height, width), crop=image_size)

    def on(self, background: Colour | None) -> Preprocessing:
        """The same with another background; this one if it is None."""
        return self if background is None else dataclasses.replace(self, background=background)

    def apply(self, image: Picture) -> NDArray[np.float32]:
        """Make upright RGB, resize the shorter side, crop the centre, scale to [0, 1], normalise.

        Args:
            image: Any image of Pillow whose pixels have a range, see `vitc.models.picture`; pixels
                uint8 [H, W, 3] or [H, W]; or the path of a file.

        Returns:
            float32 [3, H, W] of the crop.

        Raises:
            VitcError: As `crop_centre` and `read`, or if it is no picture.
        """
        return self.normalise(self._pixels(image))

    def crop_bytes(self, image: Picture) -> NDArray[np.uint8]:
        """`apply` without its last two steps: the pixels that an integer embedding takes.

        Resizing rounds to whole pixels, halves up, after its pass along the rows and after that
        along the columns, as `apply` does too.

        Returns:
            uint8 [3, H, W] of the crop, from 0 to 255.

        Raises:
            VitcError: As `apply`.
        """
        return colours_first(self._pixels(image))

    def _pixels(self, image: Picture) -> NDArray[np.uint8]:
        """uint8 [H, W, 3] of the crop of a picture."""
        if isinstance(image, str | os.PathLike):
            return self.read(image)
        if isinstance(image, np.ndarray):
            image = _image_of(image)
        if not isinstance(image, Image.Image):
            raise VitcError(
                f"A {type(image).__name__} is no picture.",
                "Give a path, an image of Pillow, or uint8 [H, W, 3].",
            )
        return np.asarray(self.crop_centre(image))

    def read(self, path: str | os.PathLike[str]) -> NDArray[np.uint8]:
        """The pixels of a picture file that `normalise` takes.

        Returns:
            uint8 [H, W, 3] of the crop.

        Raises:
            VitcError: If the file cannot be read, is refused, or is too long and narrow to be
                resized; it is named.
        """
        rgb = read_picture(path, self.background)
        return np.asarray(self._cropped(rgb, os.fspath(path)))

    def crop_centre(self, image: Image.Image, name: str = "The image") -> Image.Image:
        """The upright RGB image of the crop's size that `apply` normalises.

        Args:
            image: Any image of Pillow whose pixels have a range.
            name: What to call it in an error.

        Raises:
            VitcError: If its pixels have no stated range, or the image is so long and narrow that
                resizing it takes a gigabyte.
        """
        return self._cropped(upright_rgb(image, self.background), name)

    def placement(self, width: int, height: int) -> Placement:
        """Where the crop of a picture of that size lies, in pixels."""
        rows, columns = both(self.resize)
        # torchvision's rule: the shorter side is exact, the longer one truncated.
        if width * rows >= height * columns:
            size = (int(rows * width / height), rows)
        else:
            size = (columns, int(columns * height / width))
        rows, columns = both(self.crop)
        corner = round((size[0] - columns) / 2), round((size[1] - rows) / 2)
        return Placement((width, height), size, corner)

    def _cropped(self, rgb: Image.Image, name: str) -> Image.Image:
        placed = self.placement(rgb.width, rgb.height)
        size = placed.resized
        if math.prod(size) > _MOST_PIXELS:
            raise VitcError(
                f"{name} of {rgb.width} x {rgb.height} would become {size[0]} x {size[1]} when its "
                f"shorter side is resized to {sides_text(self.resize)}.",
                "Crop it first.",
            )
        if rgb.size != size:
            rgb = rgb.resize(size, _INTERPOLATION[self.interpolation])
        height, width = both(self.crop)
        left, top = placed.corner
        return rgb.crop((left, top, left + width, top + height))

    def normalise(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 [.., H, W, 3] to normalised float32 [.., 3, H, W]."""
        scaled = pixels.astype(np.float32) / np.float32(255)
        normal = (scaled - np.asarray(self.mean, np.float32)) / np.asarray(self.std, np.float32)
        return np.ascontiguousarray(np.moveaxis(normal, -1, -3), dtype=np.float32)

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        values = dataclasses.asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """The inverse of `to_dict`.

        Raises:
            VitcError: If a field is unknown or out of range.
        """
        return cls(**known_fields(cls, values, "preprocessing"))


def colours_first(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pixels [.., H, W, 3] as [.., 3, H, W]."""
    return np.ascontiguousarray(np.moveaxis(pixels, -1, -3))


def is_picture(given: object) -> bool:
    """Whether it is one picture rather than several."""
    if isinstance(given, np.ndarray):
        return given.ndim < 4
    return isinstance(given, str | os.PathLike | Image.Image) or not isinstance(given, Iterable)


def _image_of(pixels: NDArray[Any]) -> Image.Image:
    colour = pixels.ndim == 3 and pixels.shape[-1] == 3
    if pixels.dtype != np.uint8 or not (colour or pixels.ndim == 2) or not pixels.size:
        shape = " x ".join(map(str, pixels.shape)) or "no dimensions"
        raise VitcError(
            f"The picture is an array of {pixels.dtype}, {shape}; wanted uint8 of H x W x 3.",
            "Colours come last and go from 0 to 255.",
        )
    return Image.fromarray(np.ascontiguousarray(pixels))


SMALL_PICTURES: Final = Preprocessing(resize=32, crop=32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
"""Of presets of 32 px: pixels from -1 to 1."""
