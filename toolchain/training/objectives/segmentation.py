"""Classes of pixels: cross-entropy with void; the network is a checkpoint."""

from __future__ import annotations

from torch import Tensor, nn

from vitc.models.architectures.tasks import SegmentationConfig
from vitc.models.config import NetworkConfig
from vitc.runtime.segmentation import classes_of_pixels
from vitc.training.losses import Losses, added
from vitc.training.objectives.maps import MapObjective
from vitc.training.tasks.augmentation import Batch
from vitc.training.tasks.data import BACKGROUND
from vitc.training.tasks.distillation import pixel_distillation
from vitc.training.tasks.examples import TaskExamples
from vitc.training.tasks.losses import segmentation_loss
from vitc.training.tasks.measures import Confusion
from vitc.training.tasks.pictures import draw_masks

__all__ = ["Segmentation"]

_SHOWN = 8


class Segmentation(MapObjective):
    """Classes of pixels; arguments are those of `MapObjective`."""

    config: SegmentationConfig
    measures = ("miou",)

    def configured(self, trunk: NetworkConfig) -> SegmentationConfig:
        """See `MapObjective.configured`."""
        options = self.options
        return SegmentationConfig.on(
            trunk,
            control=not options.blocks,
            width=options.width,
            tower=options.tower,
            binary_head=options.binary_head,
        )

    def loss(self, maps: Tensor, batch: Batch, told: Tensor | None) -> Losses:
        """See `MapObjective.loss`."""
        assert batch.masks is not None  # noqa: S101 - of its data
        labels = self.examples.labels
        background = labels.index(BACKGROUND) if BACKGROUND in labels else None
        own = segmentation_loss(maps, batch.masks, background)
        if told is None or self.teacher is None:
            return own
        return added(own, pixel_distillation(maps, told, self.teacher.features()))

    def judged(self, network: nn.Module, examples: TaskExamples) -> dict[str, float]:
        """See `MapObjective.judged`: mean intersection over union."""
        counted = Confusion(self.config.classes)
        for numbers, maps in self.given(network, examples):
            for number, logits in zip(numbers, maps["logits"], strict=True):
                mask = examples.example(number).mask
                assert mask is not None  # noqa: S101 - of its data
                counted.add(classes_of_pixels(logits, self.config.sides), mask)
        return {"miou": counted.mean}

    def picture(self, network: nn.Module) -> bytes:
        """See `MapObjective.picture`."""
        examples = self.parts.validation
        found = [
            classes_of_pixels(logits, self.config.sides)
            for _, maps in self.given(network, examples, _SHOWN)
            for logits in maps["logits"]
        ]
        wanted = [examples.example(index) for index in range(len(found))]
        return draw_masks(wanted, found, examples.labels)
