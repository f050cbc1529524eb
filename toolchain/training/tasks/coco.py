"""Boxes of COCO JSON: ``instances_{train,val,test}*.json`` and the pictures that they name."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from vitc.errors import VitcError
from vitc.models.described import shown
from vitc.models.picture import read_picture
from vitc.models.preprocessing import Preprocessing
from vitc.training.tasks.examples import Example, FileExamples

__all__ = ["Annotations", "CocoExamples", "annotation_file", "read_annotations"]

_FOLDERS: Final = ("", "annotations")
_PICTURES: Final = ("images/{part}", "{part}", "images", "")
_BORDER: Final = 1.0
"""Pixels by which a box may stick out: tools round."""

_FARTHEST: Final = 1e9
"""Pixels; a whole number may be larger than any of a float."""

ZERO_AREA: Final = "boxes without area"


@dataclass(frozen=True)
class _Picture:
    number: Any
    path: Path
    size: tuple[int, int]
    boxes: tuple[tuple[float, float, float, float], ...]
    classes: tuple[int, ...]
    crowd: tuple[bool, ...]


@dataclass(frozen=True)
class Annotations:
    """What an annotation file says.

    Attributes:
        file: The file.
        labels: Names of its classes, by their ids.
        pictures: Its pictures, in the order of the file.
        left: What was left out, and how often.
    """

    file: Path
    labels: tuple[str, ...]
    pictures: tuple[_Picture, ...]
    left: Mapping[str, int] = field(default_factory=dict)


def annotation_file(folder: Path, part: str) -> Path | None:
    """The annotation file of a part, ``train``, ``val`` or ``test``; None if there is none."""
    for below in _FOLDERS:
        found = sorted((folder / below).glob(f"instances_{part}*.json"))
        if found:
            return found[0]
    return None


def read_annotations(file: Path, part: str, labels: Sequence[str] | None = None) -> Annotations:
    """Read and check an annotation file.

    Args:
        file: COCO JSON.
        part: Of the data set: ``train``, ``val`` or ``test``.
        labels: Names of the classes of a network; by default those of the file.

    Raises:
        VitcError: If it is no COCO JSON, a picture is missing or named twice, an id is unknown or
            used twice, a class is unknown, or a box is no box or lies outside; the file and the id
            are named.
    """
    told = _read(file)
    left: Counter[str] = Counter()
    names = _by_id(file, told, "categories", "name")
    ordered = [names[number] for number in sorted(names, key=lambda n: (str(type(n)), n))]
    if len(set(ordered)) != len(ordered) or not ordered:
        raise VitcError(
            f"{file} has {'no classes' if not ordered else 'two classes of one name'}.",
            "Give each category an id and a name of its own.",
        )
    wanted = tuple(ordered if labels is None else labels)
    unknown = sorted(set(ordered) - set(wanted))
    if unknown:
        raise VitcError(
            f"{file} has classes that the network does not know: {', '.join(unknown[:8])}.",
            f"It knows {', '.join(wanted[:8])}{', ..' if len(wanted) > 8 else ''}.",
        )
    order = {name: place for place, name in enumerate(wanted)}
    index = {number: order[name] for number, name in names.items()}
    files = _by_id(file, told, "images", "file_name")
    sizes = {entry["id"]: _size(file, entry) for entry in told["images"]}
    paths = {number: _picture(file, part, number, name) for number, name in files.items()}
    first = {path: number for number, path in reversed(paths.items())}
    for number, path in paths.items():
        if first[path] != number:
            raise VitcError(
                f"{file}: image {number} is {path.name}, and so is image {first[path]}.",
                "Give a picture one entry, and its annotations that id.",
            )
    boxes: dict[Any, list[tuple[tuple[float, float, float, float], int, bool]]] = {}
    seen: set[Any] = set()
    for place, entry in enumerate(told["annotations"]):
        number = entry.get("id", place) if isinstance(entry, dict) else place
        where = f"{file}: annotation {number}"
        if not isinstance(entry, dict):
            raise VitcError(f"{where} is no object.", "Write COCO JSON.")
        if "id" in entry and _repeated(seen, entry["id"], where):
            raise VitcError(f"{where}: its id is used twice.", "Give each annotation its own.")
        picture, of = entry.get("image_id"), entry.get("category_id")
        if not _known(picture, files):
            raise VitcError(
                f"{where} is of image {shown(picture)}, which is not among its images.",
                "Add the image, or remove the annotation.",
            )
        if not _known(of, index):
            raise VitcError(
                f"{where} is of class {shown(of)}, which is not among its categories.",
                "Add the category, or remove the annotation.",
            )
        box = _box(where, entry.get("bbox"), sizes[picture], paths[picture])
        if box is None:
            left[ZERO_AREA] += 1
            continue
        crowd = entry.get("iscrowd", 0)
        if crowd not in (0, 1):
            raise VitcError(f"{where} has iscrowd {shown(crowd)}.", "Write 0 or 1.")
        boxes.setdefault(picture, []).append((box, index[of], bool(crowd)))
    pictures = []
    for number, path in paths.items():
        own = boxes.get(number, [])
        pictures.append(
            _Picture(
                number,
                path,
                sizes[number],
                tuple(each[0] for each in own),
                tuple(each[1] for each in own),
                tuple(each[2] for each in own),
            )
        )
    if not pictures:
        raise VitcError(f"{file} has no images.", "Name a data set with pictures.")
    return Annotations(file, wanted, tuple(pictures), dict(left))


class CocoExamples(FileExamples):
    """Pictures of an annotation file, or some of them.

    Args:
        annotations: What the file says.
        preprocessing: How pictures become inputs.
        chosen: Numbers of the pictures; all by default.
    """

    def __init__(
        self,
        annotations: Annotations,
        preprocessing: Preprocessing,
        chosen: Sequence[int] | None = None,
    ) -> None:
        self.annotations = annotations
        pictures = annotations.pictures
        self.pictures = pictures if chosen is None else [pictures[i] for i in chosen]
        super().__init__(
            [str(picture.path) for picture in self.pictures], annotations.labels, preprocessing
        )

    def read(self, index: int) -> Example:
        """See `FileExamples.read`; boxes are cut where the input ends."""
        told = self.pictures[index]
        pixels = read_picture(told.path, self.preprocessing.background)
        if pixels.size != told.size:
            raise VitcError(
                f"{self.annotations.file}: image {told.number} is stated to be {told.size[0]} x "
                f"{told.size[1]}, {told.path} is {pixels.width} x {pixels.height}.",
                "Correct width and height, or the picture.",
            )
        made = np.asarray(self.preprocessing.crop_centre(pixels))
        placed = self.preprocessing.placement(*pixels.size)
        boxes = placed.on_input(np.array(told.boxes, np.float64).reshape(-1, 4))
        height, width = made.shape[:2]
        boxes = np.clip(boxes, 0, (width, height, width, height))
        seen = (boxes[:, 2:] - boxes[:, :2]).min(axis=1, initial=math.inf) > 0
        return Example(
            made,
            boxes[seen],
            np.array(told.classes, np.int64)[seen],
            np.array(told.crowd, bool)[seen],
        )


def _read(file: Path) -> dict[str, Any]:
    try:
        told = json.loads(file.read_bytes())
    except OSError as error:
        raise VitcError(f"{file} cannot be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise VitcError(f"{file} is no JSON: {error}.", "Write it again.") from error
    wanted = ("images", "annotations", "categories")
    lists = isinstance(told, dict) and all(isinstance(told.get(name), list) for name in wanted)
    if not isinstance(told, dict) or not lists:
        raise VitcError(
            f"{file} is no COCO JSON: it needs lists of images, annotations and categories.",
            "Export the annotations as COCO instances.",
        )
    return told


def _by_id(file: Path, told: Mapping[str, Any], what: str, field_name: str) -> dict[Any, str]:
    """One field of each entry of a list, a text, by its id.

    Raises:
        VitcError: If an entry has no id, one that another has, or not that field.
    """
    found: dict[Any, str] = {}
    for place, entry in enumerate(told[what]):
        number = entry.get("id") if isinstance(entry, dict) else None
        if type(number) not in (int, str):
            raise VitcError(f"{file}: entry {place} of {what} has no id.", "Write COCO JSON.")
        if number in found:
            raise VitcError(
                f"{file}: two entries of {what} have the id {number}.", "Give each its own."
            )
        value = entry.get(field_name)
        if not isinstance(value, str) or not value.strip():
            raise VitcError(f"{file}: {what} {number} has no {field_name}.", "Write COCO JSON.")
        found[number] = value
    return found


def _known(number: Any, among: Mapping[Any, Any]) -> bool:
    return type(number) in (int, str) and number in among


def _repeated(seen: set[Any], number: Any, where: str) -> bool:
    if type(number) not in (int, str):
        raise VitcError(f"{where}: its id is no number.", "Write COCO JSON.")
    before = number in seen
    seen.add(number)
    return before


def _size(file: Path, entry: Mapping[str, Any]) -> tuple[int, int]:
    sides = entry.get("width"), entry.get("height")
    if not all(type(side) is int and side > 0 for side in sides):
        raise VitcError(
            f"{file}: image {entry['id']} has width {shown(sides[0])} and height "
            f"{shown(sides[1])}.",
            "State both in pixels.",
        )
    return sides[0], sides[1]  # type: ignore[return-value]


def _picture(file: Path, part: str, number: Any, name: str) -> Path:
    root = file.parent.parent if file.parent.name == "annotations" else file.parent
    stem = file.stem.removeprefix("instances_")
    parts = dict.fromkeys((stem, part))
    looked = [root / pattern.format(part=each) / name for pattern in _PICTURES for each in parts]
    inside = not Path(name).is_absolute() and ".." not in Path(name).parts
    try:
        found = next((path for path in looked if path.is_file()), None) if inside else None
    except OSError:  # such as a name that is too long
        found = None
    if found is None:
        raise VitcError(
            f"{file}: image {number} is {shown(name)}, and there is no such picture in {root}.",
            "Put it into images/ beside the annotations, or remove the image from the file.",
        )
    return found


def _box(
    where: str, told: Any, size: tuple[int, int], path: Path
) -> tuple[float, float, float, float] | None:
    """x0, y0, x1, y1 of a box; None of one without area."""
    numbers = (
        isinstance(told, list)
        and len(told) == 4
        and all(type(v) in (int, float) and abs(v) < _FARTHEST for v in told)
    )
    if not numbers:
        raise VitcError(
            f"{where} has the box {shown(told)}, wanted four numbers: x, y, width, height.",
            "Correct it, or remove the annotation.",
        )
    x, y, width, height = map(float, told)
    if width < 0 or height < 0:
        raise VitcError(
            f"{where} has a box of {width:g} x {height:g} pixels.",
            "Write x, y, width, height; not two corners.",
        )
    if width == 0 or height == 0:
        return None
    right, bottom = x + width, y + height
    least, most = min(x, y), max(right - size[0], bottom - size[1])
    if least < -_BORDER or most > _BORDER:
        raise VitcError(
            f"{where} has a box from {x:g}, {y:g} to {right:g}, {bottom:g}, outside {path.name}, "
            f"which is {size[0]} x {size[1]}.",
            "Write x, y, width, height in pixels of the picture.",
        )
    cut = max(x, 0.0), max(y, 0.0), min(right, size[0]), min(bottom, size[1])
    return cut if cut[2] > cut[0] and cut[3] > cut[1] else None
