"""What networks of the tasks share: a trunk without its classifier, and a pyramid."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vitc.models.architectures.tasks import TaskConfig
from vitc.models.backbones.table import TRUNK_NETWORKS
from vitc.models.binary_linear import BinaryLinear
from vitc.models.network import Network
from vitc.models.preprocessing import Preprocessing
from vitc.models.schemes import scheme
from vitc.models.taps import tap
from vitc.models.tasks.convolution import NormedConvolution
from vitc.models.tasks.pyramid import Pyramid

__all__ = ["Inner", "TaskNetwork"]

_OF_CLASSES = ("norm", "head", "head_dist")


class TaskNetwork(Network):
    """A trunk and a pyramid; arguments are those of `Network`.

    In training it gives what losses take, in eval mode what decoding takes: the docstring of a
    subclass says both.

    Raises:
        VitcError: If the scheme is unknown, or as `Network`.
    """

    config: TaskConfig

    def __init__(
        self,
        config: TaskConfig,
        preprocessing: Preprocessing | None = None,
        labels: Sequence[str] | None = None,
    ) -> None:
        super().__init__(config, preprocessing, labels)
        trunk: Network = TRUNK_NETWORKS[config.trunk.arch](config.trunk, self.preprocessing)
        for name in _OF_CLASSES:
            if hasattr(trunk, name):
                delattr(trunk, name)
        if config.control:
            for module in [*trunk.modules()]:
                if isinstance(getattr(module, "blocks", None), nn.Sequential):
                    module.blocks = nn.Sequential()
        self.trunk = trunk
        self.neck = Pyramid(config)

    def levels(self, image: Tensor) -> list[Tensor]:
        """Normalised images [B, 3, H, W] to the pyramid, one [B, width, H', W'] a level.

        Raises:
            VitcError: If the images are not of the network's size.
        """
        self.check_images(image)
        made: list[Tensor] = self.neck(self.trunk.maps(image))
        return made


class Inner(nn.Module):
    """An inner layer of a head: ``ReLU(BN(Conv(x)))``, or of signs ``x + Linear(sgn(x + move))``.

    Args:
        config: Of the network; its width is that of the layer.
        binary: Whether it reads signs.
        side: Of the window; 1 of a binary layer.
        by_channel: Whether each channel has a window of its own.
    """

    def __init__(
        self, config: TaskConfig, *, binary: bool = False, side: int = 1, by_channel: bool = False
    ) -> None:
        super().__init__()
        self.layer: NormedConvolution | BinaryLinear
        if binary:
            rules = scheme(config.scheme, elastic=config.elastic)
            self.layer = BinaryLinear(
                config.width, config.width, rules, config.weight_bits, moved=True
            )
            self.layer.calls = len(config.levels)
        else:
            self.layer = NormedConvolution(config.width, config.width, side, by_channel=by_channel)

    def forward(self, x: Tensor, name: str) -> Tensor:
        """Maps [B, C, H, W] to maps of that shape; `name` is that of the tap."""
        if isinstance(self.layer, NormedConvolution):
            return tap(name, self.layer(x).relu())
        height, width = x.shape[2:]
        rows = x.permute(0, 2, 3, 1).flatten(1, 2)
        bits = tap(f"{name}.input", self.layer.binarize(rows), "bits")
        out = tap(name, rows + self.layer(bits))
        return _map(out, height, width)


def _map(rows: Tensor, height: int, width: int) -> Tensor:
    """Rows [B, H W, C] to a map [B, C, H, W]."""
    return torch.unflatten(rows, 1, (height, width)).permute(0, 3, 1, 2)
