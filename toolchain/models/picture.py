"""Opening image files: the formats that pictures come in, and no others."""

from __future__ import annotations

import os
from typing import Final

from PIL import Image

__all__ = ["FORMATS", "open_picture"]

FORMATS: Final = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""What Pillow may take a file for. It looks at the content, whatever the name, and some of its
other readers are rarely used, or start programs (Ghostscript for EPS)."""


def open_picture(path: str | os.PathLike[str]) -> Image.Image:
    """Open an image file; it is decoded when it is used.

    Raises:
        OSError: If there is no such file, or it is of none of `FORMATS`.
    """
    return Image.open(path, formats=FORMATS)
