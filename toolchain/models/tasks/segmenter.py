"""A segmentation network: a tower on the fused pyramid, made finer, and a linear a place."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from vitc.models.architectures.tasks import SegmentationConfig
from vitc.models.preprocessing import Preprocessing
from vitc.models.tasks.convolution import Finer
from vitc.models.tasks.network import TaskNetwork
from vitc.models.tasks.tower import Tower

__all__ = ["Segmenter"]


class Segmenter(TaskNetwork):
    """Classes of pixels; arguments are those of `Network`.

    It gives logits [B, H/s, W/s, K] at stride s, in training and in eval mode; what is made of
    them (bilinear to the picture's size, the largest) is in `vitc.runtime.segmentation`.

    Raises:
        VitcError: As `TaskNetwork`.
    """

    config: SegmentationConfig

    def __init__(
        self,
        config: SegmentationConfig,
        preprocessing: Preprocessing | None = None,
        labels: Sequence[str] | None = None,
    ) -> None:
        super().__init__(config, preprocessing, labels)
        self.tower = Tower(config)
        ratio = config.levels[0] // config.stride
        self.fine = Finer(config.width, config.width, ratio, "head.fine")
        self.classes = nn.Conv2d(config.width, config.classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Normalised images [B, 3, H, W] to logits [B, H / s, W / s, K].

        Raises:
            VitcError: If the images are not of the network's size.
        """
        (x,) = self.levels(image)
        logits: Tensor = self.classes(self.fine(self.tower(x, "head")).relu())
        return logits.permute(0, 2, 3, 1)
