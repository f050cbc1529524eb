"""What each place of a detector's maps should say (FCOS, Tian et al., ICCV 2019, section 3.1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

__all__ = ["RADIUS", "Targets", "assigned", "places", "ranges"]

RADIUS: Final = 1.0
"""A place learns a box whose middle is nearer than so many strides, along both axes."""

_FARTHEST: Final = 8
"""Strides from a place to the farthest side of a box of its level."""


@dataclass(frozen=True, eq=False)
class Targets:
    """Of every place; P places of all levels, row-major, the finest level first.

    Attributes:
        classes: int64 [B, P]; -1 where there is no box.
        distances: [B, P, 4], l, t, r, b in pixels; of places with a box.
        centreness: [B, P]; of places with a box.
    """

    classes: Tensor
    distances: Tensor
    centreness: Tensor


def places(size: tuple[int, int], strides: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Middles of the places [P, 2], x and y in pixels, and the stride of each [P]."""
    middles, own = [], []
    for stride in strides:
        rows, columns = (
            (torch.arange(side // stride, dtype=torch.float32) + 0.5) * stride for side in size
        )
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        middles.append(torch.stack([x.flatten(), y.flatten()], dim=1))
        own.append(torch.full((x.numel(),), float(stride)))
    return torch.cat(middles), torch.cat(own)


def ranges(strides: Sequence[int]) -> list[tuple[float, float]]:
    """Smallest and largest distance to a side that a level learns, in pixels; all of one level."""
    ends = [float(_FARTHEST * stride) for stride in strides[:-1]]
    return list(zip([0.0, *ends], [*ends, math.inf], strict=True))


def assigned(
    boxes: Tensor, classes: Tensor, size: tuple[int, int], strides: Sequence[int]
) -> Targets:
    """Give each place the smallest of the boxes that it is to learn.

    A box is learnt by the places inside it that are near its middle (`RADIUS`), on the level whose
    range its farthest side lies in.

    Args:
        boxes: [B, n, 4], x0, y0, x1, y1 in pixels.
        classes: int64 [B, n]; -1 for no box.
        size: Height and width of the images.
        strides: Of the levels, the finest first.
    """
    if not boxes.shape[1]:  # a box that nobody learns, so that there is a smallest one
        boxes = boxes.new_zeros(len(boxes), 1, 4)
        classes = classes.new_full((len(boxes), 1), -1)
    middles, own = (each.to(boxes.device) for each in places(size, strides))
    x, y = middles[:, 0, None], middles[:, 1, None]
    x0, y0, x1, y1 = (boxes[:, None, :, side] for side in range(4))
    distances = torch.stack([x - x0, y - y0, x1 - x, y1 - y], dim=-1)  # [B, P, n, 4]
    inside = distances.min(dim=-1).values > 0
    reach = RADIUS * own[:, None]
    near = ((x - (x0 + x1) / 2).abs() < reach) & ((y - (y0 + y1) / 2).abs() < reach)
    limits = torch.tensor(ranges(strides), device=boxes.device)
    counts = [(size[0] // s) * (size[1] // s) for s in strides]
    low, high = limits.repeat_interleave(torch.tensor(counts, device=boxes.device), dim=0).T
    farthest = distances.max(dim=-1).values
    of_level = (farthest > low[:, None]) & (farthest <= high[:, None])
    learnt = inside & near & of_level & (classes >= 0)[:, None]
    area = ((x1 - x0) * (y1 - y0)).expand(learnt.shape)
    smallest, which = torch.where(learnt, area, math.inf).min(dim=-1)
    found = smallest < math.inf
    chosen = classes[:, None].expand(learnt.shape).gather(2, which[..., None])[..., 0]
    of_box = distances.gather(2, which[..., None, None].expand(*which.shape, 1, 4))[:, :, 0]
    pairs = of_box.clamp(min=1e-6)
    across, down = pairs[..., 0::2], pairs[..., 1::2]
    balance = (across.amin(-1) / across.amax(-1)) * (down.amin(-1) / down.amax(-1))
    return Targets(torch.where(found, chosen, -1), of_box, balance.sqrt())
