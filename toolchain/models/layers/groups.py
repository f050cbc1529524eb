"""Groups of tokens: the windows, tiles and blocks of a map, as views."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Blocks", "Grouping", "Rectangles"]


class Grouping(Protocol):
    """How the tokens of a stream stand in groups, which attend or are mixed inside themselves."""

    def split(self, x: Tensor) -> Tensor:
        """Tokens [B, N, C] to groups [B, G, n, C]."""

    def join(self, x: Tensor) -> Tensor:
        """Groups [B, G, n, C] to tokens [B, N, C]."""

    def spread(self, x: Tensor) -> Tensor:
        """Numbers of the places in a group [n] to those of the tokens [N]."""


@dataclass(frozen=True)
class Rectangles:
    """Equal rectangles of a map whose tokens are row-major, as are groups and places in them.

    Attributes:
        map: Rows and columns of tokens.
        size: Rows and columns of a rectangle, which divide those of the map.
        shift: How many rows and columns the map is rolled up and left before it is cut: place r of
            the shifted map is row (r + shift) mod H.
    """

    map: tuple[int, int]
    size: tuple[int, int]
    shift: tuple[int, int] = (0, 0)

    @property
    def count(self) -> int:
        """G."""
        return self.map[0] * self.map[1] // (self.size[0] * self.size[1])

    def split(self, x: Tensor) -> Tensor:
        """See `Grouping.split`."""
        if any(self.shift):
            rows, columns = self.shift
            x = torch.unflatten(x, 1, self.map).roll((-rows, -columns), (1, 2)).flatten(1, 2)
        (height, width), (rows, columns) = self.map, self.size
        cut = torch.unflatten(x, 1, (height // rows, rows, width // columns, columns))
        return cut.transpose(2, 3).flatten(3, 4).flatten(1, 2)

    def join(self, x: Tensor) -> Tensor:
        """See `Grouping.join`."""
        (height, width), (rows, columns) = self.map, self.size
        cut = torch.unflatten(x, 1, (height // rows, width // columns))
        joined = torch.unflatten(cut, 3, self.size).transpose(2, 3).flatten(1, 4)
        if any(self.shift):
            return torch.unflatten(joined, 1, self.map).roll(self.shift, (1, 2)).flatten(1, 2)
        return joined

    def spread(self, x: Tensor) -> Tensor:
        """See `Grouping.spread`."""
        return _spread(self, x, self.count)

    def excluded(self) -> NDArray[np.bool_]:
        """Pairs of a shifted map that are no neighbours in the image: bool [G, 1, n, n].

        Rolling joins opposite borders in one group; the regions that meet there are told by the
        place in the shifted map: before the last group, in it and moved, in it and rolled over.
        """
        kinds = np.zeros((*self.map, 2), np.int64)
        for axis, (side, size, shift) in enumerate(
            zip(self.map, self.size, self.shift, strict=True)
        ):
            if shift:
                place = np.arange(side)
                kind = (place >= side - size).astype(np.int64) + (place >= side - shift)
                kinds[..., axis] = kind[:, None] if axis == 0 else kind
        (height, width), (rows, columns) = self.map, self.size
        cut = kinds.reshape(height // rows, rows, width // columns, columns, 2)
        regions = cut.swapaxes(1, 2).reshape(self.count, 1, rows * columns, 2)
        apart: NDArray[np.bool_] = (regions[:, :, :, None] != regions[:, :, None]).any(-1)
        return apart


@dataclass(frozen=True)
class Blocks:
    """Groups whose tokens follow each other in the stream.

    Attributes:
        count: G.
    """

    count: int

    def split(self, x: Tensor) -> Tensor:
        """See `Grouping.split`."""
        return torch.unflatten(x, 1, (self.count, -1))

    def join(self, x: Tensor) -> Tensor:
        """See `Grouping.join`."""
        return x.flatten(1, 2)

    def spread(self, x: Tensor) -> Tensor:
        """See `Grouping.spread`."""
        return _spread(self, x, self.count)


def _spread(groups: Grouping, x: Tensor, count: int) -> Tensor:
    return groups.join(x[None, None, :, None].expand(1, count, -1, 1)).flatten()
