"""Pages of what a search found: a file with thumbnails inside it, and what a server gives."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Final
from urllib.parse import quote

from PIL import Image

from vitc.errors import VitcError
from vitc.models.picture import WHITE, read_picture
from vitc.retrieval.querying import Answer

__all__ = ["PHOTO", "page", "query_page", "thumbnail"]

PHOTO: Final = "/photo/"
"""Below which a server has the photos, by their names."""

_SIDE: Final = 240
_STYLE: Final = """
:root { color-scheme: light dark; }
* { box-sizing: border-box; }
body { font-family: system-ui, sans-serif; margin: 1em auto; max-width: 80em; padding: 0 1em;
  overflow-wrap: anywhere; }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(240px, 45%), 1fr));
  gap: 1em; }
figure { margin: 0; }
img { width: 100%; aspect-ratio: 1; object-fit: contain; background: #8883; }
form { display: flex; gap: .5em; max-width: 40em; }
input { font-size: large; flex: 1; min-width: 0; }
figcaption { font-size: small; }
"""


def page(title: str, photos: Path, answer: Answer) -> str:
    """One HTML file that loads nothing; names of files and words are text in it, whatever they are.

    Args:
        title: What was searched for.
        photos: Folder of the photos.
        answer: What was found.
    """

    def source(name: str) -> str | None:
        data = thumbnail(photos / name)
        if data is None:
            return None
        return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"

    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return _document(
        title,
        f"<h1>{_text(title)}</h1>\n{_answer(answer, source)}",
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
    )


def query_page(words: str, answer: Answer | None, trouble: str = "") -> str:
    """A page with a field for words, of a server that has the photos below `PHOTO`.

    Args:
        words: What the field holds.
        answer: What was found; None if nothing was searched for.
        trouble: Why nothing could be searched; empty for nothing.
    """

    def source(name: str) -> str:
        return PHOTO + quote(name, errors="surrogateescape")

    field = (
        '<form action="/" role="search"><input type="search" name="q" aria-label="Words" '
        f'autofocus maxlength="1000" value="{_text(words)}"> <button>Search</button></form>\n'
    )
    said = f'<p role="alert">{_text(trouble)}</p>\n' if trouble else ""
    shown = "" if answer is None else _answer(answer, source)
    return _document(words or "Search photos", f"{field}{said}{shown}")


def thumbnail(file: Path) -> bytes | None:
    """A photo as a small JPEG that is drawn anew; None if it cannot be read."""
    try:
        picture = read_picture(file, WHITE)
    except VitcError:
        return None
    picture.thumbnail((_SIDE, _SIDE), Image.Resampling.BICUBIC)
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=85)
    return data.getvalue()


def _document(title: str, body: str, head: str = "") -> str:
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">{head}'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_text(title)}</title><style>{_STYLE}</style></head><body>\n"
        f"{body}</body></html>\n"
    )


def _answer(answer: Answer, source: Callable[[str], str | None]) -> str:
    figures = "\n".join(
        f"<figure>{_image(source(found.name))}<figcaption>{place}. "
        f"{_text(found.name)}<br>score {found.score}</figcaption></figure>"
        for place, found in enumerate(answer.found, 1)
    )
    return f"<p>{answer.images} photos, {answer.search_ms:.1f} ms</p>\n<main>\n{figures}\n</main>\n"


def _image(source: str | None) -> str:
    if source is None:
        return "<p>cannot be read</p>"
    return f'<img alt="" src="{_text(source)}">'


def _text(text: str) -> str:
    """Text as HTML; bytes of a name that are no UTF-8 are shown as such."""
    return escape(text.encode("utf-8", "backslashreplace").decode())
