"""Inner layers of a head, one behind the other."""

from __future__ import annotations

from torch import Tensor, nn

from vitc.models.architectures.tasks import HeadedConfig
from vitc.models.tasks.network import Inner

__all__ = ["Tower"]


class Tower(nn.Module):
    """The layers that a head has before its outputs.

    Args:
        config: Of the network: its `tower`, how many `layers`, and whether they are binary.
    """

    def __init__(self, config: HeadedConfig) -> None:
        super().__init__()
        self.tower = config.tower
        self.layers = nn.ModuleList()
        for _ in range(config.layers):
            if config.tower == "depthwise":
                self.layers.append(Inner(config, side=3, by_channel=True))
            side = 3 if config.tower == "dense" else 1
            self.layers.append(Inner(config, binary=config.binary_head, side=side))

    def forward(self, x: Tensor, name: str) -> Tensor:
        """Maps [B, C, H, W] to maps of that shape; `name` is that of the taps."""
        step = 2 if self.tower == "depthwise" else 1
        for place, layer in enumerate(self.layers):
            depth = ".depth" if step == 2 and place % 2 == 0 else ""
            x = layer(x, f"{name}.{place // step}{depth}")
        return x
