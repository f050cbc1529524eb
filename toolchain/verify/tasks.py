"""Labelled pictures of detection and segmentation, and figures of both sides of a check."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitc.models.architectures.tasks import DetectionConfig, TaskConfig
from vitc.models.network import Network
from vitc.models.picture import Colour
from vitc.models.picture_files import counted
from vitc.runtime.detection import Detections, decode
from vitc.runtime.segmentation import classes_of_pixels
from vitc.training.tasks.data import load_test
from vitc.training.tasks.examples import TaskExamples
from vitc.training.tasks.mask_folders import VOID
from vitc.training.tasks.measures import Confusion, precision
from vitc.verify.comparison import Images, Judge
from vitc.verify.report import Accuracy

__all__ = ["labelled"]


@dataclass(frozen=True)
class _Pictures:
    """Pictures, read when they are asked for."""

    examples: TaskExamples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, numbers: list[int], /) -> dict[str, NDArray[np.float32]]:
        return {"input": self.examples.__getitems__(numbers)[0].numpy()}


@dataclass(frozen=True, eq=False)
class _Boxes:
    """Mean average precision of both."""

    config: DetectionConfig
    examples: TaskExamples
    own: list[Detections] = field(default_factory=list)
    theirs: list[Detections] = field(default_factory=list)

    def add(
        self, numbers: Sequence[int], own: Mapping[str, Any], theirs: Mapping[str, Any]
    ) -> None:
        for maps, found in ((own, self.own), (theirs, self.theirs)):
            found += [
                decode(
                    {name: value[i].astype(np.float32) for name, value in maps.items()},
                    self.config.strides,
                    self.config.sides,
                )
                for i in range(len(numbers))
            ]

    def measures(self) -> Mapping[str, Accuracy]:
        wanted = [self.examples.example(index) for index in range(len(self.examples))]
        own, theirs = (
            precision(found, wanted, self.config.classes) for found in (self.own, self.theirs)
        )
        return {"map50": Accuracy(own.map50, theirs.map50), "map": Accuracy(own.map, theirs.map)}


class _Pixels:
    """Mean intersection over union of both."""

    def __init__(self, config: TaskConfig, examples: TaskExamples) -> None:
        self.size = config.sides
        self.examples = examples
        self.own, self.theirs = Confusion(config.classes), Confusion(config.classes)

    def add(
        self, numbers: Sequence[int], own: Mapping[str, Any], theirs: Mapping[str, Any]
    ) -> None:
        for place, number in enumerate(numbers):
            mask = self.examples.example(number).mask
            assert mask is not None  # noqa: S101 - of a data set of masks
            for maps, counts in ((own, self.own), (theirs, self.theirs)):
                logits = maps["logits"][place].astype(np.float32)
                counts.add(classes_of_pixels(logits, self.size), mask)

    def measures(self) -> Mapping[str, Accuracy]:
        return {"miou": Accuracy(self.own.mean, self.theirs.mean)}


def labelled(
    model: Network,
    spec: str,
    background: Colour | None,
    layer_images: int,
    note: Callable[[str], None],
) -> Images:
    """The test pictures of a data set, with what judges the maps of both sides.

    The value of void pixels is the one that the network was trained with.

    Args:
        model: Of a task.
        spec: As of `vitc.training.tasks.data.load_test`.
        background: Colour below transparent pixels, if not what it was trained with.
        layer_images: How many are compared layer by layer.
        note: Told what was left out.

    Raises:
        VitcError: As `load_test`.
    """
    config = model.config
    assert isinstance(config, TaskConfig)  # noqa: S101 - the caller asks for networks of a task
    options = model.history.get("options")
    void = options.get("void") if isinstance(options, dict) else None
    labels = model.labels or tuple(str(number) for number in range(config.classes))
    examples, left = load_test(
        config.arch,
        spec,
        model.preprocessing.on(background),
        labels,
        void if type(void) is int else VOID,
    )
    if left:
        note(f"left out of {spec}: {counted(left)}")
    judge: Judge = (
        _Boxes(config, examples)
        if isinstance(config, DetectionConfig)
        else _Pixels(config, examples)
    )
    return Images(
        _Pictures(examples), min(layer_images, len(examples)), names=examples.names, judge=judge
    )
