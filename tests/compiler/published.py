"""Two published binary transformers, of vitc.nn and torch: their blocks, at the size of a test.

BinaryViT (Le and Li, CVPR Workshops 2023) adds to each block what average pooling makes of it, and
reads keys from a pooled map. BHViT (Gao et al., CVPR 2025) adds shifted copies of the tokens
instead. Both have a residual beside every binary linear, RPReLU (Liu et al., ReActNet, ECCV 2020),
and an affine of channels before each sum; the two stages here are joined by a binary convolution
beside a pooled residual.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from vitc import nn

__all__ = ["BHViT", "BinaryViT"]

SIDE, WIDTH = 8, 32


def as_map(x: Tensor, side: int) -> Tensor:
    """[B, N, C] to [B, C, side, side]."""
    return x.transpose(1, 2).unflatten(2, (side, side))


def as_tokens(x: Tensor) -> Tensor:
    """[B, C, H, W] to [B, H W, C]."""
    return x.flatten(2).transpose(1, 2)


class RPReLU(torch.nn.Module):
    """PReLU of channels between two shifts, [B, N, C]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.before = torch.nn.Parameter(torch.zeros(width))
        self.prelu = torch.nn.PReLU(width)
        self.after = torch.nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        active = self.prelu((x - self.before).transpose(-1, -2))
        return active.transpose(-1, -2) + self.after


class Affine(torch.nn.Module):
    """A gain and a shift of each channel, [B, N, C]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gain = torch.nn.Parameter(torch.full((width,), 0.1))
        self.move = torch.nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gain + self.move


class Linear(torch.nn.Module):
    """A layer norm of a binary linear of shifted signs, [B, N, inputs] to [B, N, outputs]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.move = torch.nn.Parameter(torch.zeros(inputs))
        self.sign = nn.Binarize()
        self.linear = nn.BinaryLinear(inputs, outputs)
        self.norm = torch.nn.LayerNorm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.linear(self.sign(x + self.move)))


class Attention(torch.nn.Module):
    """Binary attention, whose keys may come from a pooled map, beside residuals of both."""

    def __init__(self, width: int, heads: int, side: int, ratio: int) -> None:
        super().__init__()
        self.side, self.few = side, side // ratio
        self.pool = torch.nn.AvgPool2d(ratio)
        self.reduce, self.reduced = Linear(width, width), RPReLU(width)
        self.attend = nn.BinaryAttention(width, heads, side * side, keys=self.few**2)
        self.norm, self.attended = torch.nn.LayerNorm(width), RPReLU(width)
        self.project, self.projected = Linear(width, width), RPReLU(width)
        self.scale = Affine(width)

    def forward(self, x: Tensor) -> Tensor:
        few = as_tokens(self.pool(as_map(x, self.side)))
        few = self.reduced(self.reduce(few) + few)
        wide = F.interpolate(as_map(few, self.few), size=(self.side, self.side), mode="nearest")
        y = self.attended(self.norm(self.attend(x, few)) + x + as_tokens(wide))
        return self.scale(self.projected(self.project(y) + y))


class MLP(torch.nn.Module):
    """Two binary linears; beside the first copies of its input, beside the second means of it."""

    def __init__(self, width: int, ratio: int = 4) -> None:
        super().__init__()
        self.ratio = ratio
        self.up, self.active = Linear(width, ratio * width), RPReLU(ratio * width)
        self.down, self.mixed = Linear(ratio * width, width), RPReLU(width)
        self.pool = torch.nn.AvgPool1d(ratio)
        self.scale = Affine(width)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.active(self.up(x) + torch.cat([x] * self.ratio, dim=-1))
        return self.scale(self.mixed(self.down(hidden) + self.pool(hidden)))


class Pools(torch.nn.Module):
    """BinaryViT's branches: means of 3 and of 5 neighbours along both axes of the map."""

    def __init__(self, width: int, side: int) -> None:
        super().__init__()
        self.side = side
        windows = ((1, 3), (3, 1), (1, 5), (5, 1))
        self.pools = torch.nn.ModuleList(
            torch.nn.AvgPool2d(window, 1, (window[0] // 2, window[1] // 2)) for window in windows
        )
        self.scales = torch.nn.ModuleList(Affine(width) for _ in windows)

    def forward(self, x: Tensor) -> list[Tensor]:
        tokens = as_map(x, self.side)
        pairs = zip(self.pools, self.scales, strict=True)
        return [scale(as_tokens(pool(tokens))) for pool, scale in pairs]


class Shifts(torch.nn.Module):
    """BHViT's branches: means of shifted tokens, and a shift of a quarter of the channels each."""

    def __init__(self, width: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.scales = torch.nn.ModuleList(Affine(width) for _ in range(5))

    def forward(self, x: Tensor) -> list[Tensor]:
        tokens, made = as_map(x, self.side), []
        for axis in (2, 3):
            near = tokens + tokens.roll(1, axis) + tokens.roll(-1, axis)
            made += [near / 3, (near + tokens.roll(2, axis) + tokens.roll(-2, axis)) / 5]
        down, up, right, left = tokens.chunk(4, dim=1)
        quarters = [down.roll(1, 2), up.roll(-1, 2), right.roll(1, 3), left.roll(-1, 3)]
        made.append(torch.cat(quarters, dim=1))
        return [scale(as_tokens(x)) for x, scale in zip(made, self.scales, strict=True)]


Branches = Callable[[int, int], torch.nn.Module]


class Layer(torch.nn.Module):
    """A block of a stream [B, N, C]."""

    def __init__(
        self, name: str, width: int, heads: int, side: int, ratio: int, branches: Branches
    ) -> None:
        super().__init__()
        self.name = name
        self.norm1 = torch.nn.LayerNorm(width)
        self.attention = Attention(width, heads, side, ratio)
        self.norm2 = torch.nn.LayerNorm(width)
        self.mlp = MLP(width)
        self.branches = branches(width, side)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.tap(f"{self.name}.attended", x + self.attention(self.norm1(x)))
        y = self.norm2(x)
        x = x + self.mlp(y)
        for branch in self.branches(y):
            x = x + branch
        return nn.tap(f"{self.name}.output", x)


class Merge(torch.nn.Module):
    """Half the side and twice the width: a binary 2 x 2 convolution beside a pooled residual."""

    def __init__(self, width: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.norm = torch.nn.LayerNorm(width)
        self.convolve, self.active = Linear(4 * width, 2 * width), RPReLU(2 * width)
        self.pool = torch.nn.AvgPool2d(2)
        self.positions = torch.nn.Parameter(torch.zeros(1, side * side // 4, 2 * width))

    def forward(self, x: Tensor) -> Tensor:
        x, half = self.norm(x), self.side // 2
        rest = as_tokens(self.pool(as_map(x, self.side)))
        fours = x.unflatten(1, (half, 2, half, 2)).permute(0, 1, 3, 2, 4, 5)
        merged = self.convolve(fours.flatten(3).flatten(1, 2))
        return self.active(merged + torch.cat([rest, rest], dim=-1)) + self.positions


class _Pyramid(torch.nn.Module):
    """Images [B, 3, 32, 32] to logits [B, 10], in two stages."""

    def __init__(self, branches: Branches) -> None:
        super().__init__()
        self.patches = torch.nn.Conv2d(3, WIDTH, kernel_size=4, stride=4)
        self.norm0 = torch.nn.LayerNorm(WIDTH)
        self.positions = torch.nn.Parameter(torch.zeros(1, SIDE * SIDE, WIDTH))
        self.first = Layer("first", WIDTH, 1, SIDE, 2, branches)
        self.merge = Merge(WIDTH, SIDE)
        self.second = Layer("second", 2 * WIDTH, 2, SIDE // 2, 1, branches)
        self.norm = torch.nn.LayerNorm(2 * WIDTH)
        self.head = torch.nn.Linear(2 * WIDTH, 10)

    def forward(self, image: Tensor) -> Tensor:
        x = self.norm0(as_tokens(self.patches(image))) + self.positions
        x = self.first(nn.tap("embedding", x))
        x = self.second(nn.tap("merged", self.merge(x)))
        return self.head(self.norm(x).mean(dim=1))


class BinaryViT(_Pyramid):
    """BinaryViT, with its average-pooling branches."""

    def __init__(self) -> None:
        super().__init__(Pools)


class BHViT(_Pyramid):
    """BHViT, with its shifts beside the MLP."""

    def __init__(self) -> None:
        super().__init__(Shifts)
