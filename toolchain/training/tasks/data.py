"""The parts of a task's data: to learn from, to choose the epoch by, to judge by."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from vitc.errors import VitcError
from vitc.models.preprocessing import Preprocessing
from vitc.training.tasks.coco import (
    Annotations,
    CocoExamples,
    annotation_file,
    read_annotations,
)
from vitc.training.tasks.examples import SceneExamples, TaskExamples
from vitc.training.tasks.mask_folders import (
    VOID,
    MaskExamples,
    MaskFolder,
    find_masks,
    read_labels,
)
from vitc.training.tasks.scenes import DIGIT_LABELS, SCENES, Part

__all__ = ["BACKGROUND", "TaskParts", "load_task_parts", "load_test"]

BACKGROUND: Final = "background"
"""Label of the class for everything else, which scenes have."""

_TRAINED: Final = 768
_VALIDATED: Final = 100
_HELD: Final = 200
_SHARE: Final = 0.1
_SEED: Final = 0


@dataclass(frozen=True)
class TaskParts:
    """Examples of a run; no picture is in two parts.

    Attributes:
        train: The weights are learnt from these.
        validation: The best epoch is chosen by these.
        test: The chosen weights are judged by these.
        left: What was left out, and how often.
    """

    train: TaskExamples
    validation: TaskExamples
    test: TaskExamples
    left: Mapping[str, int] = field(default_factory=dict)


def load_task_parts(
    task: str, spec: str, preprocessing: Preprocessing, *, seed: int = 0, void: int = VOID
) -> TaskParts:
    """Find the three parts.

    Args:
        task: ``detection`` or ``segmentation``.
        spec: One of `vitc.training.tasks.scenes.SCENES`, or a folder: of COCO JSON and pictures for
            detection, of pictures and masks for segmentation.
        preprocessing: How pictures become inputs.
        seed: Of scenes that are learnt from.
        void: Value of pixels of no class, beside 255.

    Raises:
        VitcError: If there is no such data, or something in it does not hold together.
    """
    if spec in SCENES:
        masks = task == "segmentation"
        labels = (BACKGROUND, *DIGIT_LABELS) if masks else DIGIT_LABELS

        def made(part: Part, count: int, own: int | None) -> SceneExamples:
            return SceneExamples(spec, part, count, labels, preprocessing, masks=masks, seed=own)

        return TaskParts(
            made("train", _TRAINED, seed), made("val", _VALIDATED, None), made("test", _HELD, None)
        )
    folder = _folder(spec)
    return (_masks if task == "segmentation" else _boxes)(folder, preprocessing, void)


def load_test(
    task: str, spec: str, preprocessing: Preprocessing, labels: Sequence[str], void: int = VOID
) -> tuple[TaskExamples, Mapping[str, int]]:
    """Examples to judge a network by, and what was left out: the test part, else val, else train.

    Args:
        task: As of `load_task_parts`.
        spec: As of `load_task_parts`.
        preprocessing: As of `load_task_parts`.
        labels: Names of the network's classes.
        void: As of `load_task_parts`.

    Raises:
        VitcError: As `load_task_parts`, or if it has classes that the network does not know.
    """
    if spec in SCENES:
        masks = task == "segmentation"
        own = (BACKGROUND, *DIGIT_LABELS) if masks else DIGIT_LABELS
        if tuple(labels) != own:
            raise VitcError(
                f"{spec} has the classes {', '.join(own)}, the network others.",
                "Give the data that it was trained on.",
            )
        return SceneExamples(spec, "test", _HELD, own, preprocessing, masks=masks), {}
    folder = _folder(spec)
    for part in ("test", "val", "train"):
        if task == "segmentation":
            found = find_masks(folder, part)
            if found is not None:
                return MaskExamples(found, labels, preprocessing, void), found.left
            continue
        file = annotation_file(folder, part)
        if file is not None:
            read = read_annotations(file, part, labels)
            return CocoExamples(read, preprocessing), read.left
    raise _nothing(folder, task)


def _folder(spec: str) -> Path:
    folder = Path(spec)
    if not folder.is_dir():
        raise VitcError(
            f"There is no data folder {folder}.",
            f"Name a folder, or scenes: {', '.join(SCENES)}.",
        )
    return folder


def _nothing(folder: Path, task: str) -> VitcError:
    if task == "segmentation":
        return VitcError(
            f"{folder} has no pictures with masks: no train/ or images/train/.",
            "Put pictures into train/ and masks of the same names into trainannot/.",
        )
    return VitcError(
        f"{folder} has no annotations: no instances_train.json, there or in annotations/.",
        "Export the annotations as COCO instances.",
    )


def _boxes(folder: Path, preprocessing: Preprocessing, _: int) -> TaskParts:
    files = {part: annotation_file(folder, part) for part in ("train", "val", "test")}
    if files["train"] is None:
        raise _nothing(folder, "detection")
    train = read_annotations(files["train"], "train")
    others = {
        part: read_annotations(file, part, train.labels)
        for part, file in files.items()
        if file is not None and part != "train"
    }
    if not others:
        raise VitcError(
            f"{folder} has no instances_test.json or instances_val.json to judge by.", "Add one."
        )
    for found in (train, *others.values()):
        if not any(not crowd for picture in found.pictures for crowd in picture.crowd):
            raise VitcError(
                f"{found.file} has no boxes with an area, crowds aside.", "Annotate its pictures."
            )

    def made(found: Annotations, chosen: Sequence[int] | None = None) -> TaskExamples:
        return CocoExamples(found, preprocessing, chosen)

    return _split(train, others, made, _held(files["train"], len(train.pictures)))


def _masks(folder: Path, preprocessing: Preprocessing, void: int) -> TaskParts:
    train = find_masks(folder, "train")
    if train is None:
        raise _nothing(folder, "segmentation")
    labels = read_labels(folder, train, void)
    others = {
        part: found for part in ("val", "test") if (found := find_masks(folder, part)) is not None
    }
    if not others:
        raise VitcError(f"{folder} has neither test/ nor val/ to judge by.", "Add one.")

    def made(found: MaskFolder, chosen: Sequence[int] | None = None) -> TaskExamples:
        return MaskExamples(found, labels, preprocessing, void, chosen)

    return _split(train, others, made, _held(folder, len(train.pairs)))


_Found = TypeVar("_Found", Annotations, MaskFolder)


def _split(
    train: _Found,
    others: Mapping[str, _Found],
    made: Callable[..., TaskExamples],
    held: tuple[list[int], list[int]],
) -> TaskParts:
    """The parts of a folder; without a ``val`` beside ``test`` some of ``train`` is for validation.

    Args:
        train: What is to be learnt from.
        others: ``val``, ``test`` or both.
        made: Examples of a part, or of some numbers of it.
        held: Numbers of `train` that stay, and that are for validation.
    """
    left: Counter[str] = Counter(train.left)
    for other in others.values():
        left.update(other.left)
    test = made(others.get("test") or others["val"])
    if len(others) > 1:
        return TaskParts(made(train), made(others["val"]), test, left)
    kept, chosen = held
    return TaskParts(made(train, kept), made(train, chosen), test, left)


def _held(where: Path, count: int) -> tuple[list[int], list[int]]:
    """Numbers of what stays to be learnt from, and of a tenth, at least one, for validation."""
    if count < 2:
        raise VitcError(
            f"{where} has {count} pictures, which leaves none to choose an epoch by.", "Add some."
        )
    share = max(1, round(_SHARE * count))
    held = set(random.Random(_SEED).sample(range(count), share))  # noqa: S311
    return [i for i in range(count) if i not in held], sorted(held)
