"""Windows and blocks: rectangles of a map of tokens that attend inside themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Grouping", "Rectangles"]


class Grouping(Protocol):
    """How the tokens of a stream stand in groups."""

    def split(self, x: Tensor) -> Tensor:
        """Tokens [B, N, C] to groups [B, G, n, C]."""

    def join(self, x: Tensor) -> Tensor:
        """Groups [B, G, n, C] to tokens [B, N, C]."""


@dataclass(frozen=True)
class Rectangles:
    """Equal rectangles of a map; tokens, groups and places in a group are row-major.

    Attributes:
        map: Rows and columns of tokens.
        size: Rows and columns of a rectangle, which divide those of the map.
        shift: Rows and columns that the map is rolled up and left before it is cut.
    """

    map: tuple[int, int]
    size: tuple[int, int]
    shift: tuple[int, int] = (0, 0)

    def split(self, x: Tensor) -> Tensor:
        """See `Grouping.split`."""
        x = torch.unflatten(x, 1, self.map)
        if any(self.shift):
            x = x.roll((-self.shift[0], -self.shift[1]), (1, 2))
        (height, width), (rows, columns) = self.map, self.size
        cut = torch.unflatten(x, 1, (height // rows, rows))
        cut = torch.unflatten(cut, 3, (width // columns, columns))
        return cut.transpose(2, 3).flatten(3, 4).flatten(1, 2)

    def join(self, x: Tensor) -> Tensor:
        """See `Grouping.join`."""
        (height, width), (rows, columns) = self.map, self.size
        cut = torch.unflatten(x, 1, (height // rows, width // columns))
        cut = torch.unflatten(cut, 3, self.size)
        joined = cut.transpose(2, 3).flatten(1, 2).flatten(2, 3)
        if any(self.shift):
            joined = joined.roll(self.shift, (1, 2))
        return joined.flatten(1, 2)

    def excluded(self) -> NDArray[np.bool_]:
        """Pairs of a group that are no neighbours in the image, bool [G, 1, n, n].

        Rolling puts opposite borders into one group. Rows of the rolled map are of three regions:
        before the last group, in it, and in it but rolled over (Swin, section 3.2).
        """
        (height, width), (rows, columns) = self.map, self.size
        region = sum(
            np.expand_dims(
                (np.arange(side) >= side - size).astype(np.int64)
                + (np.arange(side) >= side - shift)
                if shift
                else np.zeros(side, np.int64),
                1 - axis,
            )
            * 3**axis
            for axis, (side, size, shift) in enumerate(
                zip(self.map, self.size, self.shift, strict=True)
            )
        )
        cut = region.reshape(height // rows, rows, width // columns, columns)
        groups = cut.swapaxes(1, 2).reshape(-1, 1, rows * columns)
        apart: NDArray[np.bool_] = groups[..., :, None] != groups[..., None, :]
        return apart
