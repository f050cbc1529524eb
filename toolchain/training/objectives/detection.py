"""Boxes of objects: focal, GIoU and centreness losses; the network is a checkpoint."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from vitc.models.architectures.tasks import DetectionConfig
from vitc.models.config import NetworkConfig
from vitc.runtime.detection import Detections, decode
from vitc.training.losses import Losses, added
from vitc.training.objectives.maps import MapObjective
from vitc.training.tasks.augmentation import Batch
from vitc.training.tasks.distillation import box_distillation
from vitc.training.tasks.examples import TaskExamples
from vitc.training.tasks.losses import detection_loss
from vitc.training.tasks.measures import precision
from vitc.training.tasks.pictures import draw_boxes
from vitc.training.tasks.targets import assigned

__all__ = ["Detection"]

_SMALL = 96
_STRIDES = (8, 16, 32)
_SHOWN = 12


class Detection(MapObjective):
    """Boxes and their classes; arguments are those of `MapObjective`."""

    config: DetectionConfig
    measures = ("map50", "map")

    def configured(self, trunk: NetworkConfig) -> DetectionConfig:
        """See `MapObjective.configured`.

        Small pictures have one level of stride 8, others as many of strides 8, 16, 32 as divide
        both sides.
        """
        most = 1 if max(trunk.sides) <= _SMALL else len(_STRIDES)
        strides = [s for s in _STRIDES[:most] if not any(side % s for side in trunk.sides)]
        options = self.options
        return DetectionConfig.on(
            trunk,
            strides=tuple(strides or _STRIDES[:1]),
            control=not options.blocks,
            width=options.width,
            tower=options.tower,
            binary_head=options.binary_head,
        )

    def loss(self, maps: dict[str, Tensor], batch: Batch, told: dict[str, Tensor] | None) -> Losses:
        """See `MapObjective.loss`."""
        strides = self.config.strides
        targets = assigned(batch.boxes, batch.classes, self.config.sides, strides)
        own = detection_loss(maps, targets, strides)
        if told is None or self.teacher is None:
            return own
        features = self.teacher.features()
        return added(own, box_distillation(maps, told, targets, self.config, features))

    def judged(self, network: nn.Module, examples: TaskExamples) -> dict[str, float]:
        """See `MapObjective.judged`: mean average precision at .5, and over .5 to .95."""
        found = self.found(network, examples)
        wanted = [examples.example(index) for index in range(len(examples))]
        told = precision(found, wanted, self.config.classes)
        return {"map50": told.map50, "map": told.map}

    def found(
        self, network: nn.Module, examples: TaskExamples, most: int | None = None
    ) -> list[Detections]:
        """Boxes of each of the first `most` examples."""
        made: list[Detections] = []
        for numbers, maps in self.given(network, examples, most):
            made += [
                decode(_of(maps, index), self.config.strides, self.config.sides)
                for index in range(len(numbers))
            ]
        return made

    def picture(self, network: nn.Module) -> bytes:
        """See `MapObjective.picture`."""
        examples = self.parts.validation
        found = self.found(network, examples, _SHOWN)
        wanted = [examples.example(index) for index in range(len(found))]
        return draw_boxes(wanted, found, examples.labels)


def _of(maps: dict[str, Any], index: int) -> dict[str, Any]:
    return {name: value[index] for name, value in maps.items()}
