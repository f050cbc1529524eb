"""What a network is: its configuration, its preprocessing, and the table of presets."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitc import names
from vitc.errors import VitcError
from vitc.models.picture import DECODING, WHITE, Colour, read_picture, upright_rgb

__all__ = ["PRESETS", "ModelConfig", "Preprocessing", "Preset", "preset"]

IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
IMAGENET_STD: Final = (0.229, 0.224, 0.225)

_INTERPOLATION: Final = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "nearest": Image.Resampling.NEAREST,
}


_LARGEST: Final = 1 << 20
"""Of any size. A file may state what it likes, and memory is made by what it states."""

_MOST_VALUES: Final = 1 << 28
"""Tokens times width."""

_MOST_PIXELS: Final = 1 << 26
"""Of a resized image, before its centre is cut out."""


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _number(value: object) -> bool:
    return type(value) in (int, float) and abs(value) < math.inf  # type: ignore[arg-type]


def _level(value: object) -> bool:
    return type(value) is int and 0 <= value <= 255


def _known_fields(cls: type, values: Mapping[str, Any], what: str) -> dict[str, Any]:
    fields = {field.name: field for field in dataclasses.fields(cls)}
    unknown = sorted(set(values) - set(fields))
    missing = sorted(
        name
        for name, field in fields.items()
        if name not in values and field.default is dataclasses.MISSING
    )
    if unknown or missing:
        found = [f"unknown {name}" for name in unknown] + [f"missing {name}" for name in missing]
        raise VitcError(
            f"The {what} does not fit this version of vitc: {', '.join(found)}.",
            "Write the file again with this version.",
        )
    return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of a binarized vision transformer (SI-BiViT).

    Attributes:
        image_size: Height and width of the input in pixels.
        patch_size: Side of a patch in pixels.
        width: C, channels of a token.
        depth: Number of blocks.
        heads: h, attention heads; the head width is C / h.
        hidden: M, hidden channels of the MLP (MLP ratio times C).
        classes: Number of logits.
        si: Whether blocks have the spatial interaction branch.
        si_hidden: Hidden tokens of that branch (0 without SI; the official code uses N).
        arch: Network family.
        scheme: Binarization scheme, a key of `vitc.models.schemes.SCHEMES`.
        weight_bits: 1, or 32 for the first training step (latent weights used as they are).
        bn_eps: Constant of every batch norm; it is not in a state dict.

    Raises:
        VitcError: If the sizes contradict each other.
    """

    image_size: int
    patch_size: int
    width: int
    depth: int
    heads: int
    hidden: int
    classes: int
    si: bool = False
    si_hidden: int = 0
    arch: str = "sibivit"
    scheme: str = "bibert"
    weight_bits: int = 1
    bn_eps: float = 1e-6

    def __post_init__(self) -> None:
        sizes = ("image_size", "patch_size", "width", "depth", "heads", "hidden", "classes")
        for name in sizes:
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= _LARGEST:
                raise VitcError(
                    f"{name} must be a positive integer of at most {_LARGEST}, found "
                    f"{_shown(value)}."
                )
        if type(self.si) is not bool or type(self.si_hidden) is not int:
            raise VitcError(
                f"si must be true or false and si_hidden an integer, found {_shown(self.si)} and "
                f"{_shown(self.si_hidden)}."
            )
        if not 0 <= self.si_hidden <= _LARGEST or self.tokens * self.width > _MOST_VALUES:
            raise VitcError(
                f"{self.tokens} tokens of width {self.width} with {self.si_hidden} hidden tokens "
                "are more than vitc takes."
            )
        if self.image_size % self.patch_size:
            raise VitcError(
                f"The image size {self.image_size} is not a multiple of the patch size "
                f"{self.patch_size}.",
                f"Choose a multiple of {self.patch_size}.",
            )
        if self.width % self.heads:
            raise VitcError(f"The width {self.width} is not a multiple of {self.heads} heads.")
        if self.si != (self.si_hidden > 0):
            raise VitcError(
                f"si is {self.si} but si_hidden is {self.si_hidden}; SI needs a positive hidden "
                "size, and no SI needs 0."
            )
        if self.arch != "sibivit":
            raise VitcError(f"Unknown architecture {_shown(self.arch)}; vitc knows sibivit.")
        if not isinstance(self.scheme, str):
            raise VitcError(f"scheme must be a name, found {_shown(self.scheme)}.")
        if self.weight_bits not in (1, 32):
            raise VitcError(f"weight_bits must be 1 or 32, found {_shown(self.weight_bits)}.")
        if not _number(self.bn_eps) or not self.bn_eps > 0:
            raise VitcError(f"bn_eps must be positive, found {_shown(self.bn_eps)}.")

    @property
    def tokens(self) -> int:
        """N, patches plus the class token."""
        return (self.image_size // self.patch_size) ** 2 + 1

    @property
    def head_width(self) -> int:
        """D, channels of a head."""
        return self.width // self.heads

    @property
    def mlp_ratio(self) -> float:
        """R, hidden channels over channels."""
        return self.hidden / self.width

    def replace(
        self,
        *,
        image_size: int | None = None,
        classes: int | None = None,
        depth: int | None = None,
        mlp_ratio: int | None = None,
        si: bool | None = None,
        weight_bits: int | None = None,
    ) -> ModelConfig:
        """This configuration with some sizes changed; SI's hidden size follows the tokens."""
        changed = dataclasses.replace(
            self,
            image_size=self.image_size if image_size is None else image_size,
            classes=self.classes if classes is None else classes,
            depth=self.depth if depth is None else depth,
            hidden=self.hidden if mlp_ratio is None else mlp_ratio * self.width,
            weight_bits=self.weight_bits if weight_bits is None else weight_bits,
        )
        with_si = self.si if si is None else si
        return dataclasses.replace(changed, si=with_si, si_hidden=changed.tokens if with_si else 0)

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelConfig:
        """The inverse of `to_dict`.

        Raises:
            VitcError: If a field is unknown or missing, or sizes contradict each other.
        """
        return cls(**_known_fields(cls, values, "model configuration"))


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
                f"Unknown interpolation {_shown(self.interpolation)}; known: "
                f"{', '.join(sorted(_INTERPOLATION))}."
            )
        if not all(
            type(size) is int and 1 <= size <= _LARGEST for size in (self.crop, self.resize)
        ):
            raise VitcError(
                f"resize and crop must be integers from 1 to {_LARGEST}, found "
                f"{_shown(self.resize)} and {_shown(self.crop)}."
            )
        if not 1 <= self.crop <= self.resize:
            raise VitcError(
                f"A centre crop of {self.crop} does not fit a shorter side of {self.resize}."
            )
        channels = (self.mean, self.std)
        if not all(isinstance(c, tuple) and len(c) == 3 and all(map(_number, c)) for c in channels):
            raise VitcError("mean and std need three numbers each.")
        if not all(s > 0 for s in self.std):
            raise VitcError("mean and std need three values each, and std must be positive.")
        ground = self.background
        if not (isinstance(ground, tuple) and len(ground) == 3 and all(map(_level, ground))):
            raise VitcError(
                f"background must be three integers from 0 to 255, found {_shown(ground)}."
            )
        if self.decoding != DECODING:
            raise VitcError(
                f"Unknown decoding of pictures {_shown(self.decoding)}; this vitc knows {DECODING}."
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
        return cls(**_known_fields(cls, values, "preprocessing"))


@dataclass(frozen=True)
class Preset:
    """A named network: its configuration, its preprocessing, one line about it."""

    name: str
    config: ModelConfig
    preprocessing: Preprocessing
    summary: str


def _deit(name: str, width: int, heads: int) -> Preset:
    config = ModelConfig(
        image_size=224,
        patch_size=16,
        width=width,
        depth=12,
        heads=heads,
        hidden=2 * width,
        classes=1000,
        si=True,
        si_hidden=197,
    )
    return Preset(name, config, Preprocessing(), f"DeiT width {width}, 12 blocks, 224 px, SI")


_MICRO = Preset(
    name="micro",
    config=ModelConfig(
        image_size=32,
        patch_size=8,
        width=64,
        depth=3,
        heads=2,
        hidden=128,
        classes=10,
        si=True,
        si_hidden=17,
    ),
    preprocessing=Preprocessing(resize=32, crop=32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
    summary="width 64, 32 px, 17 tokens, SI: trains on digits in minutes on a CPU",
)

PRESETS: Final[Mapping[str, Preset]] = MappingProxyType(
    {
        entry.name: entry
        for entry in (
            _deit("deit-tiny", 192, 3),
            _deit("deit-small", 384, 6),
            _deit("deit-base", 768, 12),
            _MICRO,
        )
    }
)


def preset(name: str) -> Preset:
    """Look up a preset.

    Raises:
        VitcError: If there is none of that name; the nearest is named and the known are listed.
    """
    return PRESETS[names.PRESETS.check(name)]
