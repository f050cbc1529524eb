"""Boxes and masks drawn on pictures."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

__all__ = ["colour", "with_boxes", "with_mask"]

_GOLDEN = 0.618034


def colour(number: int) -> tuple[int, int, int]:
    """A colour of a class; neighbours differ."""
    red, green, blue = colorsys.hsv_to_rgb(number * _GOLDEN % 1, 0.75, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def with_boxes(
    picture: Image.Image,
    boxes: NDArray[np.floating],
    classes: Sequence[int],
    texts: Sequence[str],
) -> Image.Image:
    """A picture with boxes x0, y0, x1, y1 in its pixels, each with a text."""
    drawn = picture.convert("RGB")
    pen = ImageDraw.Draw(drawn)
    line = max(1, round(min(drawn.size) / 240))
    size = max(10, round(min(drawn.size) / 24))
    font = ImageFont.load_default(size)
    for box, own, text in zip(boxes, classes, texts, strict=True):
        paint = colour(int(own))
        x0, y0, x1, y1 = (float(side) for side in box)
        pen.rectangle((x0, y0, max(x1 - 1, x0), max(y1 - 1, y0)), outline=paint, width=line)
        if text:
            top = max(y0 - size - 2, 0)
            pen.rectangle(pen.textbbox((x0, top), text, font=font), fill=paint)
            pen.text((x0, top), text, fill=(0, 0, 0), font=font)
    return drawn


def with_mask(
    picture: Image.Image, mask: NDArray[np.integer], *, hidden: int | None = None
) -> Image.Image:
    """A picture with a colour laid over each class.

    Args:
        picture: RGB.
        mask: [H, W] of its size; below 0 nothing is laid.
        hidden: A class that is not coloured, such as that of a background.
    """
    plain = np.asarray(picture.convert("RGB"), np.float32)
    most = max(int(mask.max(initial=0)), 0)
    colours = np.array([colour(number) for number in range(most + 1)], np.float32)
    shown = (mask >= 0) if hidden is None else (mask >= 0) & (mask != hidden)
    laid = colours[np.clip(mask, 0, most)]
    mixed = np.where(shown[..., None], 0.5 * plain + 0.5 * laid, plain)
    return Image.fromarray(np.rint(mixed).astype(np.uint8))
