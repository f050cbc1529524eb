"""What a user says of a checkpoint that its file does not say: labels, and how images are made."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from vitc.errors import VitcError
from vitc.models.described import Sides, both, sides_text
from vitc.models.preprocessing import Preprocessing

__all__ = ["Stated", "read_labels"]

_MOST_BYTES: Final = 16 << 20
_LABELS: Final = "Give a text file with one name a line, in the order of the logits, or JSON."
_FIELDS: Final = ("resize", "crop", "interpolation", "mean", "std")


@dataclass(frozen=True)
class Stated:
    """Facts about a checkpoint; what is None is as its file says, or else assumed.

    Attributes:
        labels: Names of the classes, in the order of the logits.
        resize: As of `Preprocessing`, like the next four.
        crop: The image size of the network.
        interpolation: ``bicubic``, ``bilinear`` or ``nearest``.
        mean: Per channel, subtracted after scaling to [0, 1].
        std: Per channel, divided by.
    """

    labels: tuple[str, ...] | None = None
    resize: Sides | None = None
    crop: Sides | None = None
    interpolation: str | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None

    @classmethod
    def of(cls, preprocessing: Preprocessing, labels: tuple[str, ...] | None) -> Stated:
        """All that is stated elsewhere."""
        return cls(labels, **{name: getattr(preprocessing, name) for name in _FIELDS})

    @property
    def _given(self) -> dict[str, Any]:
        values = {name: getattr(self, name) for name in _FIELDS}
        return {name: value for name, value in values.items() if value is not None}

    def preprocessing(self, usual: Preprocessing) -> Preprocessing:
        """How images become inputs: what is stated, and the rest of `usual`.

        Raises:
            VitcError: If it does not hold together.
        """
        if self.crop is not None and both(self.crop) != both(usual.crop):
            raise VitcError(
                f"The preprocessing crops to {sides_text(self.crop)} px but the network takes "
                f"{sides_text(usual.crop)} px.",
                "The crop is the image size of the network; --resize is free.",
            )
        if self.mean is not None and not all(0 <= part <= 1 for part in self.mean):
            raise VitcError(
                f"A mean of {_option(self.mean)} is beyond all pixels, which are from 0 to 1 here.",
                "Divide mean and std by 255 if they are of pixels from 0 to 255.",
            )
        return dataclasses.replace(usual, **self._given)

    def assumed(self, used: Preprocessing) -> str | None:
        """A sentence about what of `used` nobody stated, as options to be copied; None if nothing.

        Args:
            used: What `preprocessing` gave where the file states none.
        """
        left = [name for name in _FIELDS if name not in self._given]
        if not left:
            return None
        options = " ".join(f"--{name} {_option(getattr(used, name))}" for name in left)
        what = "that of ImageNet is assumed" if len(left) == len(_FIELDS) else "assumed is the rest"
        whole = "no preprocessing" if len(left) == len(_FIELDS) else "not the whole preprocessing"
        return f"{whole} is stated: {what}, {options}"


def _option(value: object) -> str:
    if isinstance(value, tuple):
        return ("x" if isinstance(value[0], int) else ",").join(map(str, value))
    return str(value)


def read_labels(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Read names of classes: a text file with one a line, or JSON.

    Args:
        path: A ``.json`` holds a list of names, or an object from the number of a class to its name
            (``id2label`` of Hugging Face) or to an identifier and its name (Keras' index of
            ImageNet); any other file is text.

    Returns:
        The names, in the order of the logits.

    Raises:
        VitcError: If there is no such file, or it holds something else.
    """
    file = Path(path)
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise VitcError(f"{file} is too large for names of classes.", _LABELS)
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise VitcError(
            f"The labels {file} cannot be read: {error.strerror or error}.", _LABELS
        ) from error
    except UnicodeDecodeError as error:
        raise VitcError(f"The labels {file} are not UTF-8 text.", _LABELS) from error
    if file.suffix.lower() == ".json":
        return _of_json(file, text)
    lines = text.splitlines()
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise VitcError(f"{file} names no class.", _LABELS)
    return tuple(_name(file, line, f"line {number}") for number, line in enumerate(lines, 1))


def _of_json(file: Path, text: str) -> tuple[str, ...]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise VitcError(f"{file} is no JSON ({error}).", _LABELS) from error
    if isinstance(found, dict) and isinstance(found.get("id2label"), dict):
        found = found["id2label"]
    if isinstance(found, dict):
        missing = [i for i in range(len(found)) if str(i) not in found]
        if missing:
            raise VitcError(f"{file} has no name for class {missing[0]}.", _LABELS)
        found = [found[str(i)] for i in range(len(found))]
    if not isinstance(found, list) or not found:
        raise VitcError(f"{file} holds no list of names.", _LABELS)
    pairs = [entry[-1] if isinstance(entry, list) and entry else entry for entry in found]
    return tuple(_name(file, name, f"class {index}") for index, name in enumerate(pairs))


def _name(file: Path, name: object, where: str) -> str:
    if not isinstance(name, str) or not name.strip():
        raise VitcError(f"{file} has no name at {where}.", _LABELS)
    if any(ord(letter) < 32 for letter in name):
        raise VitcError(f"The name at {where} of {file} has a control character.", _LABELS)
    return name.strip()
