"""A detector without anchors: class, box and centreness at every place (FCOS, Tian et al. 2019)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from torch import Tensor, nn

from vitc.models.architectures.tasks import DetectionConfig
from vitc.models.preprocessing import Preprocessing
from vitc.models.taps import tap
from vitc.models.tasks.network import TaskNetwork
from vitc.models.tasks.tower import Tower
from vitc.names import BRANCHES

__all__ = ["Detector"]

_PRIOR: Final = 0.01
"""Probability that a place begins with (focal loss, Lin et al. 2017)."""

_FARTHEST: Final = 6.0
"""Largest logarithm of a distance, so that no weight makes one infinite."""


class Detector(TaskNetwork):
    """Boxes; arguments are those of `Network`.

    For every level of stride s there are three maps, rows x columns x channels:

    - ``classes_s`` [B, H/s, W/s, K]: in training logits, in eval mode probabilities,
    - ``boxes_s`` [B, H/s, W/s, 4]: in training logarithms of distances in units of 2 s, in eval
      mode the distances l, t, r, b in pixels from the middle of the place to the sides of the box,
    - ``centreness_s`` [B, H/s, W/s, 1]: in training logits, in eval mode probabilities.

    So decoding (`vitc.runtime.detection`) needs nothing but additions, products and comparisons.

    Raises:
        VitcError: As `TaskNetwork`.
    """

    config: DetectionConfig

    def __init__(
        self,
        config: DetectionConfig,
        preprocessing: Preprocessing | None = None,
        labels: Sequence[str] | None = None,
    ) -> None:
        super().__init__(config, preprocessing, labels)
        self.class_tower, self.box_tower = Tower(config), Tower(config)
        self.classes = nn.Conv2d(config.width, config.classes, 1)
        self.boxes = nn.Conv2d(config.width, 4, 1)
        self.centreness = nn.Conv2d(config.width, 1, 1)
        for last in (self.classes, self.boxes, self.centreness):
            nn.init.normal_(last.weight, std=0.01)
            assert last.bias is not None  # noqa: S101 - convolutions have one
            nn.init.zeros_(last.bias)
        assert self.classes.bias is not None  # noqa: S101
        nn.init.constant_(self.classes.bias, -math.log(1 / _PRIOR - 1))

    def forward(self, image: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        """Normalised images [B, 3, H, W] to maps by name.

        Raises:
            VitcError: If the images are not of the network's size.
        """
        made: dict[str, Tensor] = {}
        for stride, x in zip(self.config.strides, self.levels(image), strict=True):
            of_class = self.class_tower(x, f"head.{stride}.classes")
            of_box = self.box_tower(x, f"head.{stride}.boxes")
            raw = self.classes(of_class), self.boxes(of_box), self.centreness(of_box)
            for branch, value in zip(BRANCHES, raw, strict=True):
                rows = value.permute(0, 2, 3, 1)
                made[f"{branch}_{stride}"] = rows if self.training else _told(branch, rows, stride)
        return made


def _told(branch: str, rows: Tensor, stride: int) -> Tensor:
    rows = tap(f"{branch}_{stride}.raw", rows)
    if branch == "boxes":
        return rows.clamp(max=_FARTHEST).exp() * (2 * stride)
    return rows.sigmoid()
