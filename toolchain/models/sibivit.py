"""SI-BiViT: a binarized vision transformer with spatial interaction (ACM MM 2024).

Parameter names are those of the official checkpoints. In eval mode everything between two binarized
values is an exact integer computed by the ops of `vitc.models.ops`, and each value that later
stages must reproduce is tapped; in training mode the same parameters run on floats with
straight-through gradients. Shapes: B batch, N tokens, C width, h heads, d head width, M hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitc.errors import VitcError
from vitc.models import ops, straight_through
from vitc.models.architectures.deit import ModelConfig
from vitc.models.binary_linear import BinaryLinear, LinearOutput
from vitc.models.network import Network
from vitc.models.preprocessing import Preprocessing
from vitc.models.schemes import Scheme, scheme
from vitc.models.taps import UNDERFLOW, binarize, tap

__all__ = ["MASK_RATIO", "SIBiViT"]

MASK_RATIO: Final = 0.25
"""A key is attended from this share of the row's largest probability on."""

_SUM_TERMS: Final = 4
_NORM_TERMS: Final = 8
_HIDDEN_TERMS: Final = 8
_FAR: Final = 2.0**-12
"""More than any rounding error, as a share of the magnitude that it is bounded by."""


class Shift(nn.Module):
    """A learned shift, broadcast over the axes of length 1 in `shape`."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(shape))

    def forward(self, x: Tensor) -> Tensor:
        """Add the shift."""
        return x + self.bias


class AxisNorm(nn.BatchNorm1d):
    """Batch norm whose statistics belong to axis 1: tokens of [B, N, C], channels of [B, C, N]."""

    def magnitude(self, x: Tensor) -> Tensor:
        """Sum of the absolute values of the terms of ``g * (x - mean) / std + b``.

        A stream value below `UNDERFLOW` counts as that: hardware may have flushed it.
        """
        if self.running_mean is None or self.running_var is None:
            raise VitcError("A batch norm without running statistics has no inference form.")
        gain = self.weight.abs() * torch.rsqrt(self.running_var + self.eps)
        terms = x.abs() + self.running_mean.abs()[:, None] + UNDERFLOW
        return terms * gain[:, None] + self.bias.abs()[:, None]


class PatchEmbed(nn.Module):
    """Non-overlapping patches through one convolution, fp32."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        size = config.patch_size
        self.proj = nn.Conv2d(3, config.width, kernel_size=size, stride=size)

    def forward(self, image: Tensor) -> Tensor:
        """Images [B, 3, H, W] to patches [B, N - 1, C]."""
        patches: Tensor = self.proj(image)
        return patches.flatten(2).transpose(1, 2)

    def magnitude(self, image: Tensor) -> Tensor:
        """Sum of the absolute values of the terms [B, N - 1, C]."""
        weight, bias = self.proj.weight.abs(), self.proj.bias
        size = self.proj.stride[0]
        terms = F.conv2d(image.abs(), weight, None if bias is None else bias.abs(), stride=size)
        return terms.flatten(2).transpose(1, 2)


class Attention(nn.Module):
    """Binary attention: signs of q, k, v, a thresholded softmax, an integer context (section 3)."""

    def __init__(self, config: ModelConfig, rules: Scheme, name: str) -> None:
        super().__init__()
        width, heads, tokens = config.width, config.heads, config.tokens
        self.name = name
        self.heads = heads
        self.head_width = config.head_width
        self.window = rules.activation_window
        self.qkv = BinaryLinear(width, 3 * width, rules, config.weight_bits, parts=3)
        self.proj = BinaryLinear(width, width, rules, config.weight_bits)
        self.moveq = Shift(1, heads, tokens, 1)
        self.movek = Shift(1, heads, tokens, 1)
        self.movev = Shift(1, heads, tokens, 1)
        self.movefc = Shift(1, tokens, 1)

    def _head_bits(self, output: LinearOutput, move: Shift, name: str) -> Tensor:
        heads = (self.heads, self.head_width)
        shift = move.bias.transpose(1, 2)
        pre = torch.unflatten(output.value(), -1, heads) + shift
        return tap(
            f"{self.name}.{name}",
            ops.binarize(pre).transpose(1, 2),
            "bits",
            lambda: pre.transpose(1, 2),
            lambda: (torch.unflatten(output.magnitude(), -1, heads) + shift.abs()).transpose(1, 2),
            terms=_SUM_TERMS + output.terms,
        )

    def attend(self, u: Tensor, magnitude: Callable[[], Tensor]) -> LinearOutput:
        """Normalised stream [B, N, C] to the projected context [B, N, C], on bits."""
        bits = binarize(u, f"{self.name}.input", magnitude, _NORM_TERMS)
        query, key, value = self.qkv.sections(bits)
        q = self._head_bits(query, self.moveq, "query")
        k = self._head_bits(key, self.movek, "key")
        v = self._head_bits(value, self.movev, "value")
        scores = tap(f"{self.name}.scores", ops.binary_scores(q, k), "int")
        p = F.softmax(scores.to(u.dtype) * self.head_width**-0.5, dim=-1)
        mask = tap(
            f"{self.name}.mask",
            ops.softmax_mask(p, MASK_RATIO),
            "bits",
            lambda: p - MASK_RATIO * p.amax(dim=-1, keepdim=True),
            lambda: p + MASK_RATIO * p.amax(dim=-1, keepdim=True),
            terms=8,
        )
        context = ops.mask_sign_matmul(mask, v).transpose(1, 2).flatten(2)
        pre = self.movefc(context.to(u.dtype))
        out = binarize(
            pre,
            f"{self.name}.context",
            lambda: context.abs() + self.movefc.bias.abs(),
            terms=2,
        )
        return self.proj.sections(out)[0]

    def forward(self, u: Tensor) -> Tensor:
        """Normalised stream [B, N, C] to the projected context, with gradients."""
        qkv = self.qkv(straight_through.sign(u, self.window))
        heads = torch.unflatten(qkv, -1, (3, self.heads, self.head_width)).permute(2, 0, 3, 1, 4)
        q, k, v = (
            straight_through.sign(move(part), self.window)
            for move, part in zip((self.moveq, self.movek, self.movev), heads, strict=True)
        )
        p = F.softmax(q @ k.mT * self.head_width**-0.5, dim=-1)
        mask = straight_through.attention_mask(p, MASK_RATIO)
        context = self.movefc((mask @ v).transpose(1, 2).flatten(2))
        out: Tensor = self.proj(straight_through.sign(context, self.window))
        return out


class TwoLayer(nn.Module):
    """Two binary linears with PReLU between: the MLP, and on the transposed stream the SI branch.

    Args:
        features: K, length of the contracted last axis (channels in the MLP, tokens in SI).
        hidden: Hidden features.
        rows: Length of axis 1, which shifts and slopes belong to (tokens, or channels in SI).
        rules: Binarization scheme.
        weight_bits: 1 or 32.
        name: Prefix of the tap names.
    """

    def __init__(
        self, features: int, hidden: int, rows: int, rules: Scheme, weight_bits: int, name: str
    ) -> None:
        super().__init__()
        self.name = name
        self.window = rules.activation_window
        self.fc1 = BinaryLinear(features, hidden, rules, weight_bits)
        self.moveact1 = Shift(1, rows, 1)
        self.prelu = nn.PReLU(rows)
        self.moveact2 = Shift(1, rows, 1)
        self.fc2 = BinaryLinear(hidden, features, rules, weight_bits)
        self.movefc1 = Shift(1, rows, 1)
        self.movefc2 = Shift(1, rows, 1)

    def mix(self, u: Tensor, magnitude: Callable[[], Tensor]) -> LinearOutput:
        """Normalised [B, rows, features] to [B, rows, features], on bits."""
        bits = binarize(
            self.movefc1(u),
            f"{self.name}.input",
            lambda: magnitude() + self.movefc1.bias.abs(),
            _NORM_TERMS,
        )
        first = self.fc1.sections(bits)[0]
        pre = self.movefc2(self.moveact2(self.prelu(self.moveact1(first.value()))))
        hidden = binarize(
            pre,
            f"{self.name}.hidden",
            lambda: self._hidden_magnitude(first),
            _HIDDEN_TERMS + first.terms,
        )
        return self.fc2.sections(hidden)[0]

    def _hidden_magnitude(self, first: LinearOutput) -> Tensor:
        before = first.magnitude() + self.moveact1.bias.abs()
        u = self.moveact1(first.value())
        # A rounding error before the PReLU leaves it times the slope on its side of zero; of both
        # slopes the larger one where it could carry u across.
        slope = self.prelu.weight.abs()[:, None].expand_as(u)
        certain = u.abs() > _FAR * before
        factor = torch.where(certain & (u >= 0), 1.0, slope)
        factor = torch.where(certain, factor, slope.clamp(min=1))
        return before * factor + self.moveact2.bias.abs() + self.movefc2.bias.abs()

    def forward(self, u: Tensor) -> Tensor:
        """The same on floats, with gradients."""
        hidden = self.fc1(straight_through.sign(self.movefc1(u), self.window))
        pre = self.movefc2(self.moveact2(self.prelu(self.moveact1(hidden))))
        out: Tensor = self.fc2(straight_through.sign(pre, self.window))
        return out


class Block(nn.Module):
    """Attention, MLP and (with SI) the spatial branch around one fp32 residual stream."""

    def __init__(self, config: ModelConfig, rules: Scheme, name: str) -> None:
        super().__init__()
        tokens, width = config.tokens, config.width
        self.name = name
        self.has_si = config.si
        self.norm1 = AxisNorm(tokens, eps=config.bn_eps)
        self.attn = Attention(config, rules, f"{name}.attn")
        self.norm2 = AxisNorm(tokens, eps=config.bn_eps)
        self.mlp = TwoLayer(width, config.hidden, tokens, rules, config.weight_bits, f"{name}.mlp")
        if config.si:
            self.learnablescaling = nn.Parameter(torch.zeros(1, 1, width))
            self.norm3 = AxisNorm(width, eps=config.bn_eps)
            self.mlp2 = TwoLayer(
                tokens, config.si_hidden, width, rules, config.weight_bits, f"{name}.si"
            )

    def forward(self, x: Tensor) -> Tensor:
        """Residual stream [B, N, C] to residual stream [B, N, C]."""
        return self._train_forward(x) if self.training else self._integer_forward(x)

    def _train_forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        if self.has_si:
            spatial = self.mlp2(self.norm3(x.transpose(1, 2))).transpose(1, 2)
            out = out + self.learnablescaling * spatial
        return out

    def _integer_forward(self, x: Tensor) -> Tensor:
        attended = self.attn.attend(self.norm1(x), lambda: self.norm1.magnitude(x))
        after = tap(
            f"{self.name}.attn.output",
            x + attended.value(),
            magnitude=lambda: x.abs() + attended.magnitude(),
            terms=_SUM_TERMS + attended.terms,
        )
        mixed = self.mlp.mix(self.norm2(after), lambda: self.norm2.magnitude(after))
        out = tap(
            f"{self.name}.mlp.output",
            after + mixed.value(),
            magnitude=lambda: after.abs() + mixed.magnitude(),
            terms=_SUM_TERMS + mixed.terms,
        )
        if not self.has_si:
            return out
        columns = after.transpose(1, 2)
        spatial = self.mlp2.mix(self.norm3(columns), lambda: self.norm3.magnitude(columns))
        gain = self.learnablescaling
        return tap(
            f"{self.name}.si.output",
            out + gain * spatial.value().transpose(1, 2),
            magnitude=lambda: out.abs() + gain.abs() * spatial.magnitude().transpose(1, 2),
            terms=6 + spatial.terms,
        )


class SIBiViT(Network):
    """The classification network on DeiT's backbone; arguments are those of `Network`.

    Raises:
        VitcError: If the scheme is unknown, or as `Network`.
    """

    config: ModelConfig

    def __init__(
        self,
        config: ModelConfig,
        preprocessing: Preprocessing | None = None,
        labels: Sequence[str] | None = None,
    ) -> None:
        super().__init__(config, preprocessing, labels)
        rules = scheme(config.scheme)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, config.tokens, config.width))
        self.patch_embed = PatchEmbed(config)
        self.blocks = nn.Sequential(
            *(Block(config, rules, f"blocks.{index}") for index in range(config.depth))
        )
        self.norm = AxisNorm(config.tokens, eps=config.bn_eps)
        self.head = nn.Linear(config.width, config.classes)
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def embed(self, image: Tensor) -> Tensor:
        """Images [B, 3, H, W] to the residual stream [B, N, C].

        Raises:
            VitcError: If the images are not of the network's size.
        """
        self.check_images(image)
        cls = self.cls_token.expand(image.shape[0], -1, -1)
        x = torch.cat((cls, self.patch_embed(image)), dim=1) + self.pos_embed
        if self.training:
            return x
        return tap(
            "embedding",
            x,
            magnitude=lambda: (
                torch.cat((cls.abs(), self.patch_embed.magnitude(image)), dim=1)
                + self.pos_embed.abs()
            ),
            terms=3 * self.config.patch_size**2 + 3,
        )

    def classify(self, x: Tensor) -> Tensor:
        """Residual stream [B, N, C] to logits [B, classes]."""
        logits: Tensor = self.head(self.norm(x)[:, 0])
        if self.training:
            return logits
        return tap(
            "logits",
            logits,
            magnitude=lambda: F.linear(
                self.norm.magnitude(x)[:, 0], self.head.weight.abs(), self.head.bias.abs()
            ),
            terms=self.config.width + _NORM_TERMS,
        )

    def forward(self, image: Tensor) -> Tensor:
        """Normalised images [B, 3, H, W] to logits [B, classes].

        Raises:
            VitcError: If the images are not of the network's size.
        """
        stream: Tensor = self.blocks(self.embed(image))
        return self.classify(stream)
