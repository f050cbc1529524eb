"""How an image becomes the input of a network."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitc.errors import VitcError
from vitc.models.described import LARGEST, known_fields, number, shown
from vitc.models.picture import DECODING, WHITE, Colour, read_picture, upright_rgb

__all__ = ["Preprocessing"]

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
class Preprocessing:
    """How an image becomes an input tensor.

    Attributes:
        resize: Length of the shorter side after resizing, pixels.
        crop: Side of the centre crop, pixels; the image size of the network.
        interpolation: ``bicubic``, ``bilinear`` or ``nearest``.
        mean: Per channel, subtracted after scaling to [0, 1].
        std: Per channel, divided by.
        background: Colour below transparency, red, green and blue from 0 to 255.
        decoding: The rule by which a file becomes 8-bit RGB, see `vitc.models.picture`.
    """

    resize: int = 256
    crop: int = 224
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
        if not all(type(size) is int and 1 <= size <= LARGEST for size in (self.crop, self.resize)):
            raise VitcError(
                f"resize and crop must be integers from 1 to {LARGEST}, found "
                f"{shown(self.resize)} and {shown(self.crop)}."
            )
        if not 1 <= self.crop <= self.resize:
            raise VitcError(
                f"A centre crop of {self.crop} does not fit a shorter side of {self.resize}."
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
    def for_image_size(cls, image_size: int) -> Preprocessing:
        """The ImageNet evaluation of DeiT: crop ratio 0.875, so 224 from 256."""
        return cls(resize=int(image_size / 0.875), crop=image_size)

    def on(self, background: Colour | None) -> Preprocessing:
        """The same with another background; this one if it is None."""
        return self if background is None else dataclasses.replace(self, background=background)

    def apply(self, image: Image.Image) -> NDArray[np.float32]:
        """Make upright RGB, resize the shorter side, crop the centre, scale to [0, 1], normalise.

        Args:
            image: Any image of Pillow whose pixels have a range, see `vitc.models.picture`.

        Returns:
            float32 [3, crop, crop].

        Raises:
            VitcError: As `crop_centre`.
        """
        return self.normalise(np.asarray(self.crop_centre(image)))

    def read(self, path: str | os.PathLike[str]) -> NDArray[np.uint8]:
        """The pixels of a picture file that `normalise` takes.

        Returns:
            uint8 [crop, crop, 3].

        Raises:
            VitcError: If the file cannot be read, is refused, or is too long and narrow to be
                resized; it is named.
        """
        rgb = read_picture(path, self.background)
        return np.asarray(self._cropped(rgb, os.fspath(path)))

    def crop_centre(self, image: Image.Image) -> Image.Image:
        """The upright RGB image of crop x crop pixels that `apply` normalises.

        Raises:
            VitcError: If its pixels have no stated range, or the image is so long and narrow that
                resizing it takes a gigabyte.
        """
        return self._cropped(upright_rgb(image, self.background), "The image")

    def _cropped(self, rgb: Image.Image, name: str) -> Image.Image:
        short = min(rgb.size)
        # torchvision's rule: the shorter side is exact, the longer one truncated.
        size = (
            self.resize if rgb.width == short else int(self.resize * rgb.width / short),
            self.resize if rgb.height == short else int(self.resize * rgb.height / short),
        )
        if math.prod(size) > _MOST_PIXELS:
            raise VitcError(
                f"{name} of {rgb.width} x {rgb.height} would become {size[0]} x {size[1]} when its "
                f"shorter side is resized to {self.resize}.",
                "Crop it first.",
            )
        if rgb.size != size:
            rgb = rgb.resize(size, _INTERPOLATION[self.interpolation])
        left = round((rgb.width - self.crop) / 2)
        top = round((rgb.height - self.crop) / 2)
        return rgb.crop((left, top, left + self.crop, top + self.crop))

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
