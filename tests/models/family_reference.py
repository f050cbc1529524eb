"""The network of spec/family.md in plain numpy, float64, written from the text: no product code."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

LEAST = 1e-5
"""Of a learned activation scale."""


def sgn(x: Array) -> Array:
    return np.where(x >= 0, 1.0, -1.0)


def fp32(x: Array | float) -> Array:
    return np.asarray(x, np.float64).astype(np.float32)


@dataclass(frozen=True)
class Deit:
    """A DeiT with tensors by the names of its checkpoint.

    Attributes:
        tensors: float64.
        scheme: ``bibert``, ``recu`` or ``bit``.
        elastic: Whether masks are BiT's own.
        heads: h.
        eps: Of the norms.
    """

    tensors: Mapping[str, Array]
    scheme: str
    heads: int
    elastic: bool = False
    eps: float = 1e-6

    def logits(self, images: Array) -> Array:
        """Images [B, 3, H, W] to logits [B, classes]."""
        t = self.tensors
        weight = t["patch_embed.proj.weight"]
        side = weight.shape[2]
        b, c, height, width = images.shape
        grid = images.reshape(b, c, height // side, side, width // side, side)
        patches = grid.transpose(0, 2, 4, 1, 3, 5).reshape(b, -1, c * side * side)
        embedded = patches @ weight.reshape(len(weight), -1).T + t["patch_embed.proj.bias"]
        start = np.broadcast_to(t["cls_token"], (b, 1, embedded.shape[2]))
        x = np.concatenate([start, embedded], axis=1) + t["pos_embed"]
        block = 0
        while f"blocks.{block}.norm1.weight" in t:
            x = self.block(x, f"blocks.{block}.")
            block += 1
        return self.norm(x, "norm.")[:, 0] @ t["head.weight"].T + t["head.bias"]

    def block(self, x: Array, name: str) -> Array:
        x = x + self.attention(self.norm(x, f"{name}norm1."), f"{name}attn.")
        out = x + self.mlp(self.norm(x, f"{name}norm2."), f"{name}mlp.")
        if f"{name}learnablescaling" in self.tensors:
            turned = self.norm(x.transpose(0, 2, 1), f"{name}norm3.")
            spatial = self.mlp(turned, f"{name}mlp2.").transpose(0, 2, 1)
            out = out + self.tensors[f"{name}learnablescaling"] * spatial
        return out

    def norm(self, x: Array, name: str) -> Array:
        gain, bias, mean, variance = (
            self.tensors[name + part].reshape(-1, 1)
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        return gain * (x - mean) / np.sqrt(variance + self.eps) + bias

    def clip(self, name: str) -> float:
        return max(float(self.tensors[name]), LEAST)

    def signs(self, x: Array, name: str) -> Array:
        """Signs of what a linear reads."""
        return sgn(x + self.tensors.get(f"{name}move.bias", np.zeros(1)))

    def linear(self, signs: Array, name: str, parts: int = 1) -> Array:
        weight, bias = self.tensors[f"{name}weight"], self.tensors[f"{name}bias"]
        if self.scheme == "bit":
            sections = np.split(weight, parts)
            sums = [signs @ sgn(section - section.mean()).T for section in sections]
            scales = [np.abs(section).mean() for section in sections]
            alpha = self.clip(f"{name}input_clip_val")
            scaled = [alpha * scale * each for scale, each in zip(scales, sums, strict=True)]
            return np.concatenate(scaled, axis=-1) + bias
        sums = signs @ sgn(weight - weight.mean(axis=1, keepdims=True)).T
        if self.scheme == "recu":
            return self.tensors[f"{name}alpha"] * (sums + bias)
        return np.abs(weight).mean(axis=1) * sums + bias

    def mlp(self, u: Array, name: str) -> Array:
        t = self.tensors
        hidden = self.linear(self.signs(u + t[f"{name}movefc1.bias"], f"{name}fc1."), f"{name}fc1.")
        z = hidden + t[f"{name}moveact1.bias"]
        z = np.where(z >= 0, z, t[f"{name}prelu.weight"].reshape(-1, 1) * z)
        z = z + t[f"{name}moveact2.bias"] + t[f"{name}movefc2.bias"]
        return self.linear(self.signs(z, f"{name}fc2."), f"{name}fc2.")

    def attention(self, u: Array, name: str) -> Array:
        t = self.tensors
        b, n, c = u.shape
        d = c // self.heads
        three = self.linear(self.signs(u, f"{name}qkv."), f"{name}qkv.", parts=3)
        by_head = three.reshape(b, n, 3, self.heads, d).transpose(2, 0, 3, 1, 4)
        q, k, v = (
            sgn(each + t[f"{name}move{which}.bias"])
            for each, which in zip(by_head, "qkv", strict=True)
        )
        distance = (d - q @ k.swapaxes(-1, -2)) / 2
        mask = self.mask(distance, d, name)
        context = (mask @ v).transpose(0, 2, 1, 3).reshape(b, n, c)
        shift = t[f"{name}movefc.bias"]
        if self.scheme != "bit":
            return self.linear(sgn(context + shift), f"{name}proj.")
        scale = self.clip(f"{name}clip_attn") * self.clip(f"{name}clip_value")
        limit = fp32(-shift / scale) + fp32(-t[f"{name}proj.move.bias"] / scale)
        assert limit.dtype == np.float32
        return self.linear(np.where(context >= limit, 1.0, -1.0), f"{name}proj.")

    def mask(self, distance: Array, d: int, name: str) -> Array:
        """Which keys are attended, given Hamming distances [.., N, M]."""
        above = (distance - distance.min(axis=-1, keepdims=True)).astype(np.int64)
        if self.scheme == "bit":
            scale = self.clip(f"{name}clip_query") * self.clip(f"{name}clip_key") / math.sqrt(d)
        else:
            scale = 1 / math.sqrt(d)
        if not self.elastic:
            quotient = math.log(2) / scale
            return (above <= (d if quotient >= d else math.floor(quotient))).astype(np.float64)
        alpha = self.clip(f"{name}clip_attn")
        weights = [2.0**44 * math.exp(-2 * scale * h) for h in range(d + 1)]
        terms = np.array([round(weight) for weight in weights], np.int64)
        least = [min(math.ceil(weight * 2 / alpha), 1 << 62) for weight in weights]
        total = terms[above].sum(axis=-1, keepdims=True)
        return (np.array(least, np.int64)[above] > total).astype(np.float64)
