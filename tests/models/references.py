"""Binarized backbones in plain numpy float64, written from the specification of the family.

Nothing of vitc is used: tensors come by their names in a checkpoint, sizes from the configuration
in its metadata. Groups are lists of token numbers, made by loops.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from safetensors import safe_open

EPS = 1e-6


def read(path: Path) -> tuple[dict[str, np.ndarray], dict]:
    """Tensors in float64, and the configuration."""
    with safe_open(path, framework="np") as opened:
        config = json.loads(opened.metadata()["vitc"])["config"]
        return {n: opened.get_tensor(n).astype(np.float64) for n in opened.keys()}, config  # noqa: SIM118


def sgn(x: np.ndarray) -> np.ndarray:
    return np.where(x >= 0, 1.0, -1.0)


def sides(size: int | list[int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else tuple(size)


def rectangles(height: int, width: int, h: int, w: int, down: int = 0, right: int = 0) -> list:
    """Token numbers of each group, row-major; place r of the shifted map is row (r + shift)."""
    groups = []
    for top in range(0, height, h):
        for left in range(0, width, w):
            rows = [(top + r + down) % height for r in range(h)]
            columns = [(left + c + right) % width for c in range(w)]
            groups.append([r * width + c for r in rows for c in columns])
    return groups


def layer_norm(x: np.ndarray, gain: np.ndarray, bias: np.ndarray) -> np.ndarray:
    mean = x.mean(-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + EPS) * gain + bias


def convolution(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, step: int, pad: int = 0):
    """Maps [B, H, W, K] to [B, H', W', O]."""
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    size_r, size_c = weight.shape[2:]
    rows, columns = (x.shape[1] - size_r) // step + 1, (x.shape[2] - size_c) // step + 1
    out = np.zeros((len(x), rows, columns, len(weight)))
    for i in range(rows):
        for j in range(columns):
            window = x[:, i * step : i * step + size_r, j * step : j * step + size_c]
            out[:, i, j] = np.einsum("brck,okrc->bo", window, weight) + bias
    return out


@dataclass
class Reference:
    """A network, and the bits, the masks, and the distance of each sign from a tie that it saw."""

    state: dict[str, np.ndarray]
    config: dict
    bits: dict[str, np.ndarray] = field(default_factory=dict)
    nearest: float = np.inf

    def sign(self, name: str, x: np.ndarray) -> np.ndarray:
        self.nearest = min(self.nearest, float(np.abs(x).min()))
        self.bits[name] = x >= 0
        return sgn(x)

    def norm(self, name: str, x: np.ndarray, kind: str | None = None) -> np.ndarray:
        s = self.state
        if (kind or self.config["norm"]) == "layer":
            return layer_norm(x, s[f"{name}.weight"], s[f"{name}.bias"])
        mean, variance, gain, bias = (
            s[f"{name}.{part}"][:, None]
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / np.sqrt(variance + EPS) * gain + bias

    def clip(self, name: str) -> float:
        """A learned scale of BiT."""
        return max(float(self.state[name]), 1e-5)

    def move(self, name: str):
        """What BiT adds to the input channels of a linear."""
        return self.state.get(f"{name}.move.bias", np.zeros(1))

    def affine(self, name: str, weight: np.ndarray, parts: int = 1) -> tuple:
        """Binary weight [O, K], scale [O] and bias [O] of a latent weight, rounded to fp32 once."""
        bias, scheme = self.state[f"{name}.bias"], self.config["scheme"]
        if scheme == "bit":
            tensors = np.split(weight, parts)
            binary = np.concatenate([sgn(each - each.mean()) for each in tensors])
            means = [np.full(len(each), np.abs(each).mean()) for each in tensors]
            scale = self.clip(f"{name}.input_clip_val") * np.concatenate(means)
        else:
            binary = sgn(weight - weight.mean(1, keepdims=True))
            scale = np.abs(weight).mean(1)
            if scheme == "recu":
                scale = self.state[f"{name}.alpha"]
                bias = scale * bias
        return binary, *(each.astype(np.float32).astype(np.float64) for each in (scale, bias))

    def linear(self, name: str, signs: np.ndarray, parts: int = 1) -> np.ndarray:
        binary, scale, bias = self.affine(name, self.state[f"{name}.weight"], parts)
        return scale * (signs @ binary.T) + bias

    def merged(self, name: str, tap: str, x: np.ndarray, step: int = 1, pad: int = 0):
        """Signs of moved channels [B, H, W, C] through a binary convolution, +1 around the map."""
        weight = self.state[f"{name}.weight"]
        kernel = weight if weight.ndim == 4 else weight[:, :, None, None]
        binary, scale, bias = self.affine(name, kernel.reshape(len(kernel), -1))
        signs = self.sign(f"{tap}.input", x + self.state[f"{name}.move.bias"])
        signs = np.pad(signs, ((0, 0), (pad, pad), (pad, pad), (0, 0)), constant_values=1)
        side = kernel.shape[2]
        starts = [range(0, length - side + 1, step) for length in signs.shape[1:3]]
        places = np.stack(
            [signs[:, i : i + side, j : j + side] for i in starts[0] for j in starts[1]], axis=1
        )
        # Rows and columns of a place, and then its channels, are one after another.
        self.bits[f"{tap}.input"] = places.reshape(*places.shape[:2], -1) > 0
        sums = np.einsum("bprsc,ocrs->bpo", places, binary.reshape(kernel.shape))
        out = scale * sums + bias
        return out.reshape(len(x), len(starts[0]), len(starts[1]), -1)

    def two_layer(self, name: str, tap: str, signs: np.ndarray) -> np.ndarray:
        """Shifts and slopes belong to the second axis of the signs from behind."""
        s = self.state
        y = self.linear(f"{name}.fc1", signs) + s[f"{name}.moveact1.bias"][0]
        slope = s[f"{name}.prelu.weight"][:, None]
        y = np.where(y >= 0, y, slope * y) + s[f"{name}.moveact2.bias"][0]
        return self.linear(
            f"{name}.fc2", self.sign(f"{tap}.hidden", y + s[f"{name}.movefc2.bias"][0])
        )

    def attend(self, name: str, queries, keys, score_bias=None, excluded=None) -> np.ndarray:
        """Signs of inputs [B, n, C] and [B, m, C] of one group to the projected context."""
        s = self.state
        if f"{name}.qkv.weight" in s:
            q, k, v = np.split(self.linear(f"{name}.qkv", queries, 3), 3, axis=-1)
        else:
            q = self.linear(f"{name}.q", queries)
            k, v = np.split(self.linear(f"{name}.kv", keys, 2), 2, axis=-1)
        heads = s[f"{name}.moveq.bias"].shape[1]
        by_head = []
        for value, move in ((q, "moveq"), (k, "movek"), (v, "movev")):
            cut = value.reshape(*value.shape[:2], heads, -1).transpose(0, 2, 1, 3)
            pre = cut + s[f"{name}.{move}.bias"]
            self.nearest = min(self.nearest, float(np.abs(pre).min()))
            by_head.append(sgn(pre))
        q, k, v = by_head
        scores = q @ k.transpose(0, 1, 3, 2)
        width = q.shape[-1]
        bit = self.config["scheme"] == "bit"
        heat = self.clip(f"{name}.clip_query") * self.clip(f"{name}.clip_key") if bit else 1.0
        root = np.float64(heat) / np.sqrt(np.float64(width))
        if self.config["elastic"]:
            assert score_bias is None
            far = ((width - scores) / 2).astype(np.int64)
            above = far - far.min(-1, keepdims=True)
            shares = [2.0**44 * np.exp(-2 * root * h) for h in range(width + 1)]
            half = 2 / self.clip(f"{name}.clip_attn")
            least = np.array([min(int(np.ceil(share * half)), 1 << 62) for share in shares])
            terms = np.array([round(share) for share in shares], np.int64)
            mask = least[above] > terms[above].sum(-1, keepdims=True)
        elif score_bias is None:
            slack = min(width, np.floor(np.log(2) / root))
            far = (width - scores) / 2
            mask = far <= far.min(-1, keepdims=True) + slack
        else:
            table = (score_bias / root).astype(np.float32)
            cut = np.float32(2 * np.log(2) / root)
            t = scores.astype(np.float32) + table
            if excluded is not None:
                t = np.where(excluded, np.float32(-np.inf), t)
            mask = t >= t.max(-1, keepdims=True) - cut
        context = (mask @ v).transpose(0, 2, 1, 3).reshape(queries.shape)
        if bit:
            c = self.clip(f"{name}.clip_attn") * self.clip(f"{name}.clip_value")
            place = (-s[f"{name}.movefc.bias"] / c).astype(np.float32)
            channel = (-self.move(f"{name}.proj") / c).astype(np.float32)
            return self.linear(f"{name}.proj", np.where(context >= place + channel, 1.0, -1.0))
        pre = context + s[f"{name}.movefc.bias"]
        self.nearest = min(self.nearest, float(np.abs(pre).min()))
        return self.linear(f"{name}.proj", sgn(pre))

    def block(self, name: str, x: np.ndarray, groups: list, si_groups: list, attend) -> np.ndarray:
        """`attend(name, bits, group number)` gives what is added to the tokens of a group."""
        s = self.state
        u = self.norm(f"{name}.norm1", x)
        first = "qkv" if f"{name}.attn.qkv.weight" in s else "q"
        signs = self.sign(f"{name}.attn.input", u + self.move(f"{name}.attn.{first}"))
        added = np.zeros_like(x)
        for number, group in enumerate(groups):
            added[:, group] = attend(f"{name}.attn", signs[:, group], u, number)
        x = x + added
        u = self.norm(f"{name}.norm2", x) + s[f"{name}.mlp.movefc1.bias"][0]
        signs = self.sign(f"{name}.mlp.input", u + self.move(f"{name}.mlp.fc1"))
        out = x + self.two_layer(f"{name}.mlp", f"{name}.mlp", signs)
        if not self.config["si"]:
            return out
        u = self.norm(f"{name}.norm3", x.transpose(0, 2, 1), "batch")
        u = u + s[f"{name}.mlp2.movefc1.bias"][0]
        u = u.copy()
        for group in si_groups:
            u[:, :, group] += self.move(f"{name}.mlp2.fc1")
        signs = self.sign(f"{name}.si.input", u)
        hidden = []
        for group in si_groups:
            mixed = self.two_layer(f"{name}.mlp2", f"{name}.si", signs[:, :, group])
            hidden.append(self.bits[f"{name}.si.hidden"])
            out[:, group] += s[f"{name}.learnablescaling"][0] * mixed.transpose(0, 2, 1)
        self.bits[f"{name}.si.hidden"] = np.concatenate(hidden, axis=2)
        return out

    def head(self, x: np.ndarray) -> np.ndarray:
        return x @ self.state["head.weight"].T + self.state["head.bias"]


def nest(net: Reference, image: np.ndarray) -> np.ndarray:
    """Images [B, 3, H, W] to logits."""
    s, config = net.state, net.config
    patch, levels = config["patch_size"], len(config["widths"])
    height, width = (side // patch for side in sides(config["image_size"]))
    block = height >> (levels - 1), width >> (levels - 1)
    x = convolution(
        image.transpose(0, 2, 3, 1), s["patch_embed.proj.weight"], s["patch_embed.proj.bias"], patch
    )
    for level in range(levels):
        if level:
            pool = f"stages.{level}.pool"
            if config["merge"] == "binary":
                x = net.merged(f"{pool}.conv", f"{pool}.conv", x, pad=1)
            else:
                x = convolution(x, s[f"{pool}.conv.weight"], s[f"{pool}.conv.bias"], 1, pad=1)
            x = net.norm(f"{pool}.norm", x, "layer")
            x = np.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)), constant_values=-np.inf)
            height, width = height // 2, width // 2
            x = np.stack(
                [
                    x[:, r : r + 2 * height : 2, c : c + 2 * width : 2]
                    for r in range(3)
                    for c in range(3)
                ]
            ).max(0)
        order = rectangles(height, width, *block)
        count, size = len(order), block[0] * block[1]
        tokens = x.reshape(len(x), -1, x.shape[-1])[:, np.concatenate(order)]
        tokens = tokens + s[f"stages.{level}.pos_embed"].reshape(1, count * size, -1)
        groups = [list(range(i * size, (i + 1) * size)) for i in range(count)]
        for index in range(config["depths"][level]):
            tokens = net.block(
                f"stages.{level}.blocks.{index}",
                tokens,
                groups,
                groups,
                lambda name, bits, *_: net.attend(name, bits, bits),
            )
        back = np.argsort(np.concatenate(order))
        x = tokens[:, back].reshape(len(x), height, width, -1)
    return net.head(net.norm("norm", tokens).mean(1))


def swin(net: Reference, image: np.ndarray) -> np.ndarray:
    """Images [B, 3, H, W] to logits."""
    s, config = net.state, net.config
    patch = config["patch_size"]
    height, width = (side // patch for side in sides(config["image_size"]))
    x = convolution(
        image.transpose(0, 2, 3, 1), s["patch_embed.proj.weight"], s["patch_embed.proj.bias"], patch
    )
    x = net.norm("patch_embed.norm", x, "layer")
    for stage in range(len(config["widths"])):
        if stage:
            quads = [x[:, row::2, column::2] for column in range(2) for row in range(2)]
            x = net.norm(f"stages.{stage}.merge.norm", np.concatenate(quads, -1), "layer")
            name = f"stages.{stage}.merge"
            if config["merge"] == "binary":
                x = net.merged(f"{name}.reduction", name, x)
            else:
                x = x @ s[f"{name}.reduction.weight"].T
            height, width = height // 2, width // 2
        h, w = min(config["window"][0], height), min(config["window"][1], width)
        tokens = x.reshape(len(x), height * width, -1)
        plain = rectangles(height, width, h, w)
        places = [(i, j) for i in range(h) for j in range(w)]
        index = [
            [(a - c + h - 1) * (2 * w - 1) + b - d + w - 1 for c, d in places] for a, b in places
        ]
        for block in range(config["depths"][stage]):
            down = h // 2 if block % 2 and height > h else 0
            right = w // 2 if block % 2 and width > w else 0
            groups = rectangles(height, width, h, w, down, right)
            table = s[f"stages.{stage}.blocks.{block}.attn.relative_position_bias_table"]
            bias = table[index].transpose(2, 0, 1)

            def region(
                token: int, down=down, right=right, h=h, w=w, whole=(height, width)
            ) -> tuple:
                kinds = []
                for at, side, size, by in zip(
                    divmod(token, whole[1]), whole, (h, w), (down, right), strict=True
                ):
                    r = (at - by) % side
                    kinds.append(0 if not by or r < side - size else 1 if r < side - by else 2)
                return tuple(kinds)

            def attend(name, bits, _, number, groups=groups, bias=bias, region=region):
                kinds = [region(token) for token in groups[number]]
                apart = np.array([[one != other for other in kinds] for one in kinds])
                return net.attend(name, bits, bits, bias, apart)

            tokens = net.block(f"stages.{stage}.blocks.{block}", tokens, groups, plain, attend)
        x = tokens.reshape(len(x), height, width, -1)
    return net.head(net.norm("norm", tokens).mean(1))


def pvt(net: Reference, image: np.ndarray) -> np.ndarray:
    """Images [B, 3, H, W] to logits."""
    s, config = net.state, net.config
    x = image.transpose(0, 2, 3, 1)
    count = len(config["widths"])
    for stage in range(count):
        name = f"stages.{stage}"
        proj = f"{name}.patch_embed.proj"
        weight = s[f"{proj}.weight"]
        if stage and config["merge"] == "binary":
            x = net.merged(proj, proj, x, step=2)
        else:
            x = convolution(x, weight, s[f"{proj}.bias"], weight.shape[2])
        x = net.norm(f"{name}.patch_embed.norm", x, "layer")
        height, width = x.shape[1:3]
        tokens = x.reshape(len(x), height * width, -1)
        if stage == count - 1:
            first = np.broadcast_to(s[f"{name}.cls_token"], (len(x), 1, tokens.shape[2]))
            tokens = np.concatenate([first, tokens], axis=1)
        tokens = tokens + s[f"{name}.pos_embed"]
        every = list(range(tokens.shape[1]))
        tiles = [every]
        if stage < count - 1 and len(every) > 196:
            h, w = (max(n for n in range(1, 15) if side % n == 0) for side in (height, width))
            tiles = rectangles(height, width, h, w)

        def attend(name, bits, u, _, size=(height, width)):
            held = u
            if f"{name}.sr.weight" in s:
                weight, bias = s[f"{name}.sr.weight"], s[f"{name}.sr.bias"]
                on_map, step = u.reshape(len(u), *size, -1), weight.shape[2]
                if config["merge"] == "binary":
                    held = net.merged(f"{name}.sr", f"{name}.reduced", on_map, step=step)
                else:
                    held = convolution(on_map, weight, bias, step)
                held = net.norm(f"{name}.norm", held.reshape(len(u), -1, u.shape[-1]))
            return net.attend(name, bits, net.sign(f"{name}.keys", held + net.move(f"{name}.kv")))

        for block in range(config["depths"][stage]):
            tokens = net.block(f"{name}.blocks.{block}", tokens, [every], tiles, attend)
        if stage < count - 1:
            x = tokens.reshape(len(x), height, width, -1)
    return net.head(net.norm("norm", tokens)[:, 0])
