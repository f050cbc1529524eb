"""Picture files as upright 8-bit RGB: the one way from a file to pixels.

What a file says about its pixels is honoured or refused by name, never dropped:

- the orientation of EXIF or XMP is applied, mirrored ones included;
- unsigned integers are scaled by their depth: up to 8 bits fill the range, of 12 and 16 bits the
  high byte is kept, so that grey and colour agree (PGM and PPM, whose largest value is stated, are
  scaled by it and rounded);
- floating point, signed and 32-bit integers are refused: no format read here states their range
  (the fields of TIFF for that hold statistics, TIFF 6.0, page 37);
- transparency (alpha, premultiplied alpha, transparent palette entries and colours) is laid on a
  background colour; a picture of which nothing but one colour is left then is refused;
- CMYK, YCbCr, CIELAB and palettes become RGB; of several frames or pages the first is taken;
- embedded colour profiles and text are ignored.

`DECODING` names this rule in checkpoints and manifests.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageColor, TiffImagePlugin, UnidentifiedImageError

from vitc.errors import VitcError

__all__ = [
    "BLACK",
    "DECODING",
    "FORMATS",
    "SUFFIXES",
    "WHITE",
    "Colour",
    "parse_colour",
    "read_picture",
    "upright_rgb",
]

Colour: TypeAlias = tuple[int, int, int]
"""Red, green, blue, 0 to 255."""

WHITE: Final[Colour] = (255, 255, 255)
BLACK: Final[Colour] = (0, 0, 0)

DECODING: Final = "upright-rgb8"
"""The rule above, by name."""

_SUFFIXES_OF: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "BMP": (".bmp",),
        "GIF": (".gif",),
        "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
        "PNG": (".png", ".apng"),
        "PPM": (".pbm", ".pgm", ".ppm", ".pnm"),
        "TIFF": (".tif", ".tiff"),
        "WEBP": (".webp",),
    }
)

FORMATS: Final = tuple(_SUFFIXES_OF)
"""What Pillow may take a file for. It looks at the content, whatever the name, and some of its
other readers are rarely used, or start programs (Ghostscript for EPS)."""

SUFFIXES: Final = frozenset(suffix for own in _SUFFIXES_OF.values() for suffix in own)
"""Names of picture files end in one of these, in small or capital letters."""

_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes an orientation of EXIF (tag 274); 1 and unknown ones are upright."""

_ORIENTATION: Final = 274
_BITS: Final = 258
_PHOTOMETRIC: Final = 262
_WHITE_IS_ZERO: Final = 0
_SAMPLE_FORMAT: Final = 339
_KINDS: Final = {1: "unsigned integer", 2: "signed integer", 3: "floating point"}

_SHORT: Final = ("I;16", "I;16L", "I;16B", "I;16N")
_PLAIN: Final = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV")
_ALPHA: Final = ("LA", "La", "PA", "RGBA", "RGBa")
_MODE_KINDS: Final = {"F": "32-bit floating point", "I": "32-bit signed integer"}
_GREY_KEY: Final = {"L;2": 85, "L;4": 17}
"""Pillow scales pixels of fewer than 8 bits but not the transparent grey beside them."""

_SEEN: Final = 16
"""Levels of 256 by which a picture has to differ from its background somewhere."""

_RESAVE: Final = "Save it with 8 or 16 bits a sample, scaled to the whole range of those."
_REPLACE: Final = "Replace the file, or remove it."


def parse_colour(text: str) -> Colour:
    """A colour as a user writes it: a name of CSS, ``#rrggbb``, or ``r,g,b``.

    Raises:
        VitcError: If it is none.
    """
    plain = f"rgb({text})" if "," in text and "(" not in text else text
    found: tuple[int, ...] = ()
    with contextlib.suppress(ValueError):
        found = ImageColor.getrgb(plain)
    if len(found) != 3 or not all(0 <= value <= 255 for value in found):
        raise VitcError(
            f"{text!r} is no colour.",
            "Write a name such as white, #rrggbb, or r,g,b from 0 to 255.",
        )
    return found[0], found[1], found[2]


def read_picture(path: str | os.PathLike[str], background: Colour) -> Image.Image:
    """Read a picture file.

    Args:
        path: A file of one of `FORMATS`, whatever its name.
        background: What lies below transparency.

    Returns:
        Mode RGB, upright; see the top of this file.

    Raises:
        VitcError: If there is no such file, or it cannot be read or is refused; it is named.
    """
    name = os.fspath(path)
    try:
        with warnings.catch_warnings():
            # Of Pillow: large pictures, damaged metadata. What matters raises.
            warnings.simplefilter("ignore")
            with Image.open(path, formats=FORMATS) as image:
                return upright_rgb(image, background, name)
    except VitcError:
        raise
    except FileNotFoundError as error:
        raise VitcError(f"There is no file {name}.", "Check the path.") from error
    except UnidentifiedImageError as error:
        kind = _kind_of_tiff(path)
        if kind is not None:
            raise _refused(name, kind) from error
        raise VitcError(
            f"{name} is not an image ({', '.join(FORMATS)}).",
            "Give a picture, such as PNG or JPEG.",
        ) from error
    except OSError as error:
        raise VitcError(
            f"The image {name} cannot be read: {error.strerror or error}.", _REPLACE
        ) from error
    except Exception as error:  # whatever a damaged file makes a decoder raise
        raise VitcError(f"The image {name} cannot be read: {error}.", _REPLACE) from error


def upright_rgb(
    image: Image.Image, background: Colour = WHITE, name: str = "The image"
) -> Image.Image:
    """Upright 8-bit RGB of an image, by the rule at the top of this file.

    Args:
        image: Any image of Pillow.
        background: What lies below transparency.
        name: What to call it in an error.

    Returns:
        Mode RGB, without metadata.

    Raises:
        VitcError: If its pixels have no stated range, or only transparency tells them apart.
    """
    depth = _raw_mode(image)
    image.load()
    kind = _unranged(image)
    if kind is not None:
        raise _refused(name, kind)
    rgb, alpha = _separated(image, depth, name)
    if alpha is not None:
        rgb = _laid(rgb, alpha, background, name)
    turn = _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
    upright = rgb if turn is None else rgb.transpose(turn)
    upright.info = {}
    return upright


def _raw_mode(image: Image.Image) -> str:
    """How the pixels lie in the file, as the decoder of Pillow is told; empty if unknown."""
    tiles = getattr(image, "tile", None)
    arguments = tiles[0][3] if tiles else ""
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""


def _unranged(image: Image.Image) -> str | None:
    """What the samples of an image are if no range is stated for them; None if one is."""
    tags = getattr(image, "tag_v2", None)
    if tags is not None:
        formats = tags.get(_SAMPLE_FORMAT, (1,))
        if set(formats) != {1}:
            return _named_samples(tags)
    if image.mode == "I" and image.format == "PPM":
        return None
    if image.mode == "I" and tags is not None:
        return _named_samples(tags)
    return _MODE_KINDS.get(image.mode)


def _named_samples(tags: Mapping[int, tuple[int, ...]]) -> str:
    bits = sorted(set(tags.get(_BITS, (1,))))
    kinds = sorted({_KINDS.get(value, "undefined") for value in tags.get(_SAMPLE_FORMAT, (1,))})
    return f"{'/'.join(map(str, bits))}-bit {' and '.join(kinds)}"


def _kind_of_tiff(path: str | os.PathLike[str]) -> str | None:
    """What the samples of a TIFF file are that Pillow has no mode for; None if it is no TIFF."""
    try:
        with open(path, "rb") as stream:  # noqa: PTH123 - a path may be bytes or a string
            start = stream.read(8)
            if start[:4] not in TiffImagePlugin.PREFIXES:
                return None
            tags = TiffImagePlugin.ImageFileDirectory_v2(start)
            stream.seek(tags.next)
            tags.load(stream)
        return _named_samples(tags)
    except Exception:  # whatever a damaged directory makes Pillow raise
        return None


def _separated(
    image: Image.Image, raw_mode: str, name: str
) -> tuple[Image.Image, Image.Image | None]:
    """RGB and, if the picture has transparency, its alpha in mode L."""
    key = image.info.get("transparency")
    if image.mode in _SHORT or image.mode == "I":
        return _grey(image, key)
    if image.mode == "LAB":
        return _from_lab(image), None
    if image.mode not in _PLAIN + _ALPHA:
        raise _refused(name, f"{image.mode} (Pillow's mode)")
    if image.mode == "RGB" and key is not None and raw_mode.endswith((";16B", ";16L")):
        raise VitcError(
            f"{name} has 16-bit colours of which one is transparent, which vitc does not read.",
            "Save it with an alpha channel, or with 8 bits a sample.",
        )
    if image.mode in ("1", "L", "RGB") and key is not None:
        scaled = key * _GREY_KEY.get(raw_mode, 1) if isinstance(key, int) else key
        pixels = np.asarray(image.convert("L" if image.mode == "1" else None))
        opaque = (pixels != np.asarray(scaled)).reshape(*pixels.shape[:2], -1).any(axis=-1)
        return _without(image).convert("RGB"), _mask(opaque)
    if image.has_transparency_data:
        clear = image.convert("LA") if image.mode == "La" else image
        both = clear.convert("RGBA")
        return both.convert("RGB"), both.getchannel("A")
    return image.convert("RGB"), None


def _without(image: Image.Image) -> Image.Image:
    """The same pixels without a transparent colour, which Pillow would not convert."""
    copied = image.copy()
    copied.info.pop("transparency", None)
    return copied


def _grey(image: Image.Image, key: object) -> tuple[Image.Image, Image.Image | None]:
    """Unsigned grey of more than 8 bits as RGB, with alpha if one grey is transparent."""
    values: NDArray[np.int64] = np.asarray(image).astype(np.int64)
    alpha = _mask(values != key) if isinstance(key, int) else None
    if image.format == "PPM":
        # Pillow has scaled the stated largest value to 65535.
        eight = (values * 255 + 32767) // 65535
    else:
        tags = getattr(image, "tag_v2", {})
        bits = int(tags.get(_BITS, (16,))[0])
        eight = values >> (bits - 8)
        # Pillow inverts grey of up to 8 bits by itself.
        if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
            eight = 255 - eight
    return Image.fromarray(eight.astype(np.uint8)).convert("RGB"), alpha


def _mask(opaque: NDArray[np.bool_]) -> Image.Image:
    return Image.fromarray(opaque.astype(np.uint8) * np.uint8(255))


def _from_lab(image: Image.Image) -> Image.Image:
    converted = ImageCms.profileToProfile(
        image, ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), outputMode="RGB"
    )
    if converted is None:  # only where it is asked to work in place
        raise ValueError("CIELAB could not be converted")
    return converted


def _laid(rgb: Image.Image, alpha: Image.Image, background: Colour, name: str) -> Image.Image:
    ground = Image.new("RGB", rgb.size, background)
    laid = Image.composite(rgb, ground, alpha)
    if _contrast(alpha) >= _SEEN > _contrast(laid):
        colour = ",".join(map(str, background))
        other = "black" if sum(background) > sum(WHITE) // 2 else "white"
        raise VitcError(
            f"{name} is one flat colour on the background {colour}: only its transparency shows "
            "what is on it.",
            f"Choose another background with `--background {other}`.",
        )
    return laid


def _contrast(image: Image.Image) -> int:
    """The largest range of a channel."""
    return int(np.ptp(np.asarray(image), axis=(0, 1)).max())


def _refused(name: str, kind: str) -> VitcError:
    return VitcError(
        f"{name} has {kind} pixels, whose range the file does not state, so they are no colours.",
        _RESAVE,
    )
