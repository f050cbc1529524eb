"""The pyramid: every level sees every map of the trunk, brought to its stride."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from vitc.models.architectures.tasks import TaskConfig, TrunkMap, trunk_maps
from vitc.models.taps import tap
from vitc.models.tasks.convolution import Finer, NormedConvolution

__all__ = ["Pyramid"]


class Pyramid(nn.Module):
    """Maps of a trunk to levels of equal width: ``ReLU(sum of the maps, brought to the stride)``.

    A map of the level's stride goes through a 1 x 1 convolution, a finer one through 3 x 3 of
    stride 2 (or R x R of stride R), a coarser one through a transposed convolution. Of a trunk with
    one map that is ViTDet's simple pyramid (Li et al., ECCV 2022).

    Args:
        config: Of the network.
    """

    def __init__(self, config: TaskConfig) -> None:
        super().__init__()
        self.levels = config.levels
        maps = trunk_maps(config.trunk)
        self.sides = nn.ModuleList(
            nn.ModuleList(
                _brought(found, level, config.width, f"neck.{level}.{index}")
                for index, found in enumerate(maps)
            )
            for level in config.levels
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps [B, C, H, W], one a stage, to one [B, width, H, W] a level."""
        made = []
        for level, sides in zip(self.levels, self.sides, strict=True):
            assert isinstance(sides, nn.ModuleList)  # noqa: S101 - of the constructor
            first, *others = [side(x) for side, x in zip(sides, maps, strict=True)]
            for other in others:
                first = first + other
            made.append(tap(f"neck.{level}", first.relu()))
        return made


def _brought(found: TrunkMap, level: int, width: int, name: str) -> nn.Module:
    if found.stride == level:
        return NormedConvolution(found.width, width)
    if found.stride > level:
        return Finer(found.width, width, found.stride // level, name)
    ratio = level // found.stride
    return NormedConvolution(found.width, width, 3 if ratio == 2 else ratio, ratio)
