"""A page of what a search found, with thumbnails inside it."""

from __future__ import annotations

import base64
import io
from html import escape
from pathlib import Path
from typing import Final

from PIL import Image

from vitc.errors import VitcError
from vitc.models.picture import WHITE, read_picture
from vitc.retrieval.querying import Answer

__all__ = ["page"]

_SIDE: Final = 240
_STYLE: Final = """
body { font-family: sans-serif; margin: 2em; color: #222; }
main { display: flex; flex-wrap: wrap; gap: 1em; }
figure { margin: 0; width: 240px; }
img { width: 240px; height: 240px; object-fit: contain; background: #eee; }
figcaption { overflow-wrap: anywhere; font-size: small; }
"""


def page(title: str, photos: Path, answer: Answer) -> str:
    """One HTML file that loads nothing; names of files and words are text in it, whatever they are.

    Args:
        title: What was searched for.
        photos: Folder of the photos.
        answer: What was found.
    """
    figures = "\n".join(
        f"<figure>{_thumbnail(photos / found.name)}<figcaption>{place}. "
        f"{_text(found.name)}<br>score {found.score}</figcaption></figure>"
        for place, found in enumerate(answer.found, 1)
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; "
        "img-src data:; style-src 'unsafe-inline'\">"
        f"<title>{_text(title)}</title><style>{_STYLE}</style></head><body>\n"
        f"<h1>{_text(title)}</h1>\n<p>{answer.images} photos, {answer.search_ms:.1f} ms</p>\n"
        f"<main>\n{figures}\n</main>\n</body></html>\n"
    )


def _text(text: str) -> str:
    """Text as HTML; bytes of a name that are no UTF-8 are shown as such."""
    return escape(text.encode("utf-8", "backslashreplace").decode())


def _thumbnail(file: Path) -> str:
    try:
        picture = read_picture(file, WHITE)
    except VitcError:
        return "<p>cannot be read</p>"
    picture.thumbnail((_SIDE, _SIDE), Image.Resampling.BICUBIC)
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=85)
    return f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}">'
