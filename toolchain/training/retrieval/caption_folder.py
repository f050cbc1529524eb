"""Folders of pictures with a file of captions.

- `captions.tsv`: a line a caption: name, tab, caption; a picture may have several lines;
- `captions.json`: ``{"captions": {name: [caption, ..]}, "splits": {part: [name, ..]}}``, Flickr8k's
  form; parts are train, dev and test, and may be left out;
- `names.json`: ``{name: {"name": caption}}``, or ``{name: caption}``.

Names are paths from the folder, or from `images/` in it. Without splits a twentieth of the pictures
each is kept for validation and test, by their names. Names of a list that have no picture are left
out and counted.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Final
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from vitc.errors import VitcError
from vitc.models.picture_files import counted
from vitc.models.preprocessing import Preprocessing
from vitc.training.retrieval.captioned import Captioned

__all__ = ["CaptionFolder", "read_caption_folder"]

_TABLE: Final = "captions.tsv"
_SPLIT: Final = "captions.json"
_NAMED: Final = "names.json"
_IMAGES: Final = "images"
_PARTS: Final = {"train": "train", "dev": "validation", "val": "validation", "test": "test"}
_TWENTIETH: Final = 20
_FEWEST: Final = 4
_LARGEST: Final = 1 << 30
"""Bytes of a file of captions."""

_LAYOUT: Final = f"Write {_TABLE} there: a line a caption, name of the picture, tab, caption."


@dataclass(frozen=True, eq=False)
class CaptionFolder:
    """Pictures of a folder; see `CaptionData`."""

    spec: str
    training: Sequence[Captioned]
    validation: Sequence[Captioned]
    test: Sequence[Captioned]
    drawn: bool = False
    turned: bool = True

    @property
    def texts(self) -> Iterable[str]:
        """All captions to learn from."""
        return [caption for picture in self.training for caption in picture.captions]

    def train(self, epoch: int) -> Sequence[Captioned]:  # noqa: ARG002
        """As `CaptionData.train`: the same in every epoch."""
        return self.training


def read_caption_folder(folder: Path, note: Callable[[str], None]) -> CaptionFolder:
    """Read what pictures there are, and what they show.

    Args:
        folder: See the top of this file.
        note: Told what is left out.

    Raises:
        VitcError: If there is no such folder, it has no file of captions or a damaged one, or a
            part has too few pictures.
    """
    if not folder.is_dir():
        raise VitcError(
            f"There is no data folder {folder}.",
            "Name a folder of pictures with a file of captions, or 'glyphs'.",
        )
    captions, splits = _read(folder)
    left: Counter[str] = Counter()
    found: dict[str, Captioned] = {}
    for name, texts in captions.items():
        file = _picture(folder, name)
        kept = tuple(text for text in (" ".join(text.split()) for text in texts) if text)
        if file is None:
            left["captioned names without a picture"] += 1
        elif not kept:
            left["pictures without a caption"] += 1
        else:
            found[name] = Captioned(name, kept, partial(_pixels, file))
    parts: dict[str, list[Captioned]] = {"train": [], "validation": [], "test": []}
    for name, picture in found.items():
        part = splits.get(name) if splits else _part(name)
        if part is None:
            left["pictures in no split"] += 1
        else:
            parts[part].append(picture)
    if left:
        note(f"left out of {folder}: {counted(left)}")
    if not parts["validation"]:
        parts["validation"] = parts["test"]
    for part, pictures in parts.items():
        if len(pictures) < _FEWEST:
            raise VitcError(
                f"{folder} has {len(pictures)} captioned pictures for {part}, wanted {_FEWEST} or "
                "more.",
                "Add pictures, or name more of them in its file of captions.",
            )
    return CaptionFolder(str(folder), parts["train"], parts["validation"], parts["test"])


def _part(name: str) -> str:
    bucket = crc32(name.encode("utf-8", "surrogateescape")) % _TWENTIETH
    return {0: "validation", 1: "test"}.get(bucket, "train")


def _picture(folder: Path, name: str) -> Path | None:
    """Where a picture is; None if there is none below the folder."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        return None
    for place in (folder / _IMAGES / path, folder / path):
        if place.is_file():
            return place
    return None


def _pixels(file: Path, shown: Preprocessing) -> NDArray[np.uint8]:
    return shown.read(file)


def _read(folder: Path) -> tuple[Mapping[str, Sequence[str]], Mapping[str, str]]:
    """Captions by name, and the part of each name where splits are stated."""
    readers = {_TABLE: _table, _SPLIT: _with_splits, _NAMED: _names}
    for name, read in readers.items():
        file = folder / name
        if file.is_file():
            captions, splits = read(file)
            if not captions:
                raise VitcError(f"{file} has no captions.", _LAYOUT)
            return captions, splits
    raise VitcError(
        f"{folder} has no file of captions: neither {', '.join(readers)}.",
        _LAYOUT,
    )


def _text(file: Path) -> str:
    try:
        if file.stat().st_size > _LARGEST:
            raise VitcError(f"{file} is larger than a file of captions may be, 1 GiB.")
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise VitcError(f"{file} is no text in UTF-8.", "Save it as UTF-8.") from error
    except OSError as error:
        raise VitcError(f"{file} cannot be read: {error.strerror or error}.") from error


def _json(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(_text(file))
    except (json.JSONDecodeError, RecursionError) as error:
        raise VitcError(f"{file} is no JSON: {error}.", _LAYOUT) from error
    if not isinstance(value, dict):
        raise VitcError(f"{file} holds no JSON object.", _LAYOUT)
    return value


def _table(file: Path) -> tuple[dict[str, list[str]], dict[str, str]]:
    captions: dict[str, list[str]] = {}
    for number, line in enumerate(_text(file).splitlines(), 1):
        if not line.strip():
            continue
        name, tab, caption = line.partition("\t")
        if not tab or not caption.strip():
            raise VitcError(f"Line {number} of {file} has no tab and caption.", _LAYOUT)
        captions.setdefault(name.strip(), []).append(caption)
    return captions, {}


def _with_splits(file: Path) -> tuple[dict[str, list[str]], dict[str, str]]:
    value = _json(file)
    captions = {
        name: _texts(file, name, texts)
        for name, texts in _object(file, "captions", value.get("captions")).items()
    }
    splits: dict[str, str] = {}
    for part, names in _object(file, "splits", value.get("splits") or {}).items():
        if part not in _PARTS:
            raise VitcError(
                f"{file} has a split {part!r}; vitc knows {', '.join(_PARTS)}.", "Rename it."
            )
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise VitcError(f"The split {part!r} of {file} is no list of names.", _LAYOUT)
        for name in names:
            if splits.setdefault(name, _PARTS[part]) != _PARTS[part]:
                raise VitcError(f"{file} has {name!r} in two splits.", "Keep it in one.")
    return captions, splits


def _names(file: Path) -> tuple[dict[str, list[str]], dict[str, str]]:
    captions = {
        name: _texts(file, name, entry.get("name") if isinstance(entry, dict) else entry)
        for name, entry in _json(file).items()
    }
    return captions, {}


def _texts(file: Path, name: str, value: object) -> list[str]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise VitcError(f"The captions of {name!r} in {file} are no texts.", _LAYOUT)
    return texts


def _object(file: Path, what: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise VitcError(f"{file} has no object {what!r}.", _LAYOUT)
    return value
