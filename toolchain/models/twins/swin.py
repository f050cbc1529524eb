"""The full-precision Swin: windows of tokens, shifted in every second block.

Liu et al., Swin Transformer: Hierarchical Vision Transformer using Shifted Windows, ICCV 2021.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from vitc.models.architectures.float_swin import SwinTwinConfig
from vitc.models.layers.groups import Rectangles
from vitc.models.preprocessing import Preprocessing
from vitc.models.taps import tap
from vitc.models.twins.block import Attention, Block, NormedPatches
from vitc.models.twins.twin import Twin

__all__ = ["SwinTwin"]

_EXCLUDED: Final = -100.0
"""Added to the scores of pairs of different regions, as the authors do."""


class _WindowAttention(Attention):
    """Attention inside windows, with a trained bias for each relative position.

    Args:
        width: C, channels.
        heads: h.
        windows: Of the map.
    """

    relative_position_index: Tensor
    excluded: Tensor | None

    def __init__(self, width: int, heads: int, windows: Rectangles) -> None:
        super().__init__(width, heads)
        rows, columns = windows.size
        places = (2 * rows - 1) * (2 * columns - 1)
        self.relative_position_bias_table = nn.Parameter(torch.zeros(places, heads))
        row, column = (axis.reshape(-1) for axis in np.indices((rows, columns)))
        index = (row[:, None] - row + rows - 1) * (2 * columns - 1)
        index += column[:, None] - column + columns - 1
        # They follow from sizes, so they are in no file, and are real on the meta device.
        self._constant("relative_position_index", torch.tensor(index.reshape(-1), device="cpu"))
        apart = None
        if any(windows.shift):
            apart = torch.tensor(windows.excluded() * np.float32(_EXCLUDED), device="cpu")
        self._constant("excluded", apart)

    def _constant(self, name: str, value: Tensor | None) -> None:
        self.register_buffer(name, value, persistent=False)

    def bias(self) -> Tensor:
        """See `Attention.bias`."""
        n = int(len(self.relative_position_index) ** 0.5)
        rows = self.relative_position_bias_table.index_select(0, self.relative_position_index)
        bias = torch.unflatten(rows, 0, (n, n)).permute(2, 0, 1)
        return bias if self.excluded is None else bias + self.excluded


class _Merge(nn.Module):
    """Four neighbours to one token: ``Linear(LN([(0,0), (1,0), (0,1), (1,1)]))``, (row, column).

    Args:
        map_size: Rows and columns before.
        inputs: Channels before.
        outputs: Channels behind.
        eps: Of the norm.
        name: Of the tap.
    """

    def __init__(
        self, map_size: tuple[int, int], inputs: int, outputs: int, *, eps: float, name: str
    ) -> None:
        super().__init__()
        self.map_size = map_size
        self.name = name
        self.norm = nn.LayerNorm(4 * inputs, eps=eps)
        self.reduction = nn.Linear(4 * inputs, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens [B, N, C] to tokens [B, N / 4, C']."""
        rows, columns = self.map_size
        cut = torch.unflatten(x, 1, (rows // 2, 2, columns // 2, 2))
        four = cut.permute(0, 1, 3, 4, 2, 5).flatten(3).flatten(1, 2)
        return tap(self.name, self.reduction(self.norm(four)))


class _Stage(nn.Module):
    def __init__(self, config: SwinTwinConfig, index: int) -> None:
        super().__init__()
        size, width = config.maps[index], config.widths[index]
        name = f"stages.{index}"
        if index:
            self.merge = _Merge(
                config.maps[index - 1],
                config.widths[index - 1],
                width,
                eps=config.side_eps,
                name=f"{name}.merge",
            )
        window = config.windowed(size)
        half = [side // 2 if side < whole else 0 for side, whole in zip(window, size, strict=True)]
        shifts = (0, 0), (half[0], half[1])
        blocks = []
        for i in range(config.depths[index]):
            windows = Rectangles(size, window, shifts[i % 2])
            blocks.append(
                Block(
                    _WindowAttention(width, config.heads[index], windows),
                    config.hidden[index],
                    eps=config.bn_eps,
                    name=f"{name}.blocks.{i}",
                    groups=None if window == size else windows,
                )
            )
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens of the stage before to those of this stage."""
        if hasattr(self, "merge"):
            x = self.merge(x)
        out: Tensor = self.blocks(x)
        return out


class SwinTwin(Twin):
    """The twin of Swin; arguments are those of `Network`."""

    config: SwinTwinConfig

    def __init__(
        self,
        config: SwinTwinConfig,
        preprocessing: Preprocessing | None = None,
        labels: Sequence[str] | None = None,
    ) -> None:
        super().__init__(config, preprocessing, labels)
        self.patch_embed = NormedPatches(config.patch_size, 3, config.widths[0], config.side_eps)
        self.stages = nn.Sequential(*(_Stage(config, s) for s in range(len(config.widths))))
        self.norm = nn.LayerNorm(config.widths[-1], eps=config.bn_eps)
        self.head = nn.Linear(config.widths[-1], config.classes)
        self._begin()

    def trunk(self, image: Tensor) -> Tensor:
        """See `Twin.trunk`."""
        self.check_images(image)
        tokens: Tensor = self.stages(tap("embedding", self.patch_embed(image)))
        return tokens

    def on_map(self, tokens: Tensor) -> Tensor:
        """See `Twin.on_map`."""
        return torch.unflatten(tokens, 1, self.config.maps[-1])

    def maps(self, image: Tensor) -> list[Tensor]:
        """See `Network.maps`."""
        self.check_images(image)
        x, made = tap("embedding", self.patch_embed(image)), []
        for stage, size in zip(self.stages, self.config.maps, strict=True):
            x = stage(x)
            made.append(torch.unflatten(x, 1, size).permute(0, 3, 1, 2))
        return made

    def forward(self, image: Tensor) -> Tensor:
        """Normalised images [B, 3, H, W] to logits [B, classes].

        Raises:
            VitcError: If the images are not of the network's size.
        """
        return tap("logits", self.head(self.norm(self.trunk(image)).mean(dim=1)))
