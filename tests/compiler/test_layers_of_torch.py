"""Float layers of torch that networks have between binary ones: compiled, or refused by name.

Every case is a layer behind a binary product, and an output of one network: exported, compiled for
this machine, and held to the float64 run of the checkpoint, each output to its own rounding bound.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import vitc
from tests.randomised import randomised
from vitc import nn as binary
from vitc.compiler import compile_model
from vitc.errors import VitcError
from vitc.verify import CheckOptions, check
from vitc.verify.report import LayerReport

C, H, W = 6, 9, 7
"""Channels and sides of the picture that each layer reads: of no vector's length."""


class Of(nn.Module):
    """A function of the picture [B, C, H, W]."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, picture: Tensor) -> Tensor:
        return self.function(picture)


class Rows(nn.Module):
    """A layer on tokens [B, H * W, C]."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, picture: Tensor) -> Tensor:
        return self.layer(picture.flatten(2).transpose(1, 2))


class Lasts(nn.Module):
    """A layer on pictures whose channels come last, between two transposes."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, picture: Tensor) -> Tensor:
        return self.layer(picture.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Lines(nn.Module):
    """A layer on signals [B, C, H * W]."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, picture: Tensor) -> Tensor:
        return self.layer(picture.flatten(2))


class Attention(nn.Module):
    """Attention in fp32, its queries, keys and values of one product, as most write it."""

    def __init__(self, heads: int, *, own: bool = False) -> None:
        super().__init__()
        self.heads, self.own = heads, own
        self.qkv, self.out = nn.Linear(C, 3 * C), nn.Linear(C, C)

    def forward(self, tokens: Tensor) -> Tensor:
        images, n, _ = tokens.shape
        qkv = self.qkv(tokens).reshape(images, n, 3, self.heads, C // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        if self.own:
            mixed = F.scaled_dot_product_attention(q, k, v)
        else:
            mixed = (q @ k.transpose(-2, -1) * (C // self.heads) ** -0.5).softmax(-1) @ v
        return self.out(mixed.transpose(1, 2).reshape(images, n, C))


class Excitation(nn.Module):
    """Squeeze and excitation."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Conv2d(C, 3, 1), nn.Conv2d(3, C, 1)

    def forward(self, picture: Tensor) -> Tensor:
        whole = F.relu(self.inner(F.adaptive_avg_pool2d(picture, 1)))
        return picture * torch.sigmoid(self.outer(whole))


class Classed(nn.Module):
    """A token of its own in front, and positions."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.zeros(1, 1, C))
        self.places = nn.Parameter(torch.zeros(1, H * W + 1, C))

    def forward(self, tokens: Tensor) -> Tensor:
        first = self.first.expand(tokens.shape[0], -1, -1)
        return torch.cat([first, F.relu(tokens)], 1) + self.places


def gated(picture: Tensor) -> Tensor:
    value, gate = picture.chunk(2, dim=1)
    return value * torch.sigmoid(gate)


def shuffled(picture: Tensor) -> Tensor:
    first, second, third = picture.split([1, 2, 3], dim=1)
    return torch.cat([third, F.relu(first), second], 1)


def added_in_place(picture: Tensor) -> Tensor:
    total = picture * 2
    total += picture
    return total.mul_(0.3)


def strided_shortcut(picture: Tensor) -> Tensor:
    return F.pad(picture[:, :, ::2, ::2], (0, 0, 0, 0, 3, 2))


CASES: dict[str, Callable[[], nn.Module]] = {
    "LayerNorm": lambda: Rows(nn.LayerNorm(C)),
    "LayerNorm without gain": lambda: Rows(nn.LayerNorm(C, elementwise_affine=False)),
    "LayerNorm between transposes": lambda: Lasts(nn.LayerNorm(C)),
    "LayerNorm of three axes": lambda: nn.LayerNorm((C, H, W)),
    "RMSNorm": lambda: Rows(nn.RMSNorm(C)),
    "GroupNorm": lambda: nn.GroupNorm(3, C),
    "BatchNorm2d": lambda: nn.BatchNorm2d(C),
    "BatchNorm1d of tokens": lambda: Rows(nn.BatchNorm1d(H * W)),
    "GELU": nn.GELU,
    "GELU by tanh": lambda: nn.GELU(approximate="tanh"),
    "ReLU in place": lambda: nn.Sequential(nn.Conv2d(C, C, 1), nn.ReLU(inplace=True)),
    "ReLU6": nn.ReLU6,
    "SiLU": nn.SiLU,
    "Hardswish": nn.Hardswish,
    "Hardsigmoid": nn.Hardsigmoid,
    "LeakyReLU": lambda: nn.LeakyReLU(0.2),
    "PReLU": lambda: nn.PReLU(C),
    "ELU": nn.ELU,
    "Mish": nn.Mish,
    "clamp": lambda: Of(lambda x: x.clamp(-0.5, 0.7)),
    "cube": lambda: Of(lambda x: x**3),
    "in place": lambda: Of(added_in_place),
    "Conv2d 3 x 3": lambda: nn.Conv2d(C, 5, 3, padding=1),
    "Conv2d of stride 2": lambda: nn.Conv2d(C, 5, 3, 2, 1, bias=False),
    "Conv2d, same": lambda: nn.Conv2d(C, 5, (4, 3), padding="same"),
    "Conv2d, dilated": lambda: nn.Conv2d(C, 5, 3, dilation=2, padding=2),
    "Conv2d, reflected": lambda: nn.Conv2d(C, 5, 3, padding=1, padding_mode="reflect"),
    "Conv2d by depth": lambda: nn.Conv2d(C, C, 3, padding=1, groups=C),
    "Conv2d by depth, doubled": lambda: nn.Conv2d(C, 2 * C, 5, 2, 2, groups=C),
    "Conv2d of groups": lambda: nn.Conv2d(C, 4, 3, groups=2),
    "Conv1d": lambda: Lines(nn.Conv1d(C, 5, 3, padding=1)),
    "ConvTranspose2d, doubled": lambda: nn.ConvTranspose2d(C, 5, 2, 2),
    "ConvTranspose2d of overlaps": lambda: nn.ConvTranspose2d(C, 5, 3, 2, 1, output_padding=1),
    "ConvTranspose2d of 4": lambda: nn.ConvTranspose2d(C, 5, 4, 2, 1, bias=False),
    "ConvTranspose2d of stride 1": lambda: nn.ConvTranspose2d(C, 5, 3),
    "ConvTranspose2d with gaps": lambda: nn.ConvTranspose2d(C, 5, 1, 3),
    "ConvTranspose2d, dilated": lambda: nn.ConvTranspose2d(C, 5, (3, 2), 2, dilation=(2, 1)),
    "ConvTranspose2d of groups": lambda: nn.ConvTranspose2d(C, 4, 3, 2, 1, groups=2),
    "ConvTranspose2d by depth": lambda: nn.ConvTranspose2d(C, C, 3, 2, groups=C),
    "MaxPool2d": lambda: nn.MaxPool2d(3, 2, 1),
    "MaxPool2d, rounded up": lambda: nn.MaxPool2d(2, ceil_mode=True),
    "MaxPool1d": lambda: Lines(nn.MaxPool1d(3)),
    "AvgPool2d": lambda: nn.AvgPool2d(3, 2, 1),
    "AvgPool2d beside padding": lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False),
    "AvgPool2d of a divisor": lambda: nn.AvgPool2d(2, divisor_override=3),
    "AdaptiveAvgPool2d of 1": lambda: nn.AdaptiveAvgPool2d(1),
    "AdaptiveAvgPool2d": lambda: nn.AdaptiveAvgPool2d((3, 7)),
    "mean of pixels": lambda: Of(lambda x: x.mean((2, 3))),
    "mean of channels": lambda: Of(lambda x: x - x.mean(1, keepdim=True)),
    "variance": lambda: Of(lambda x: x.var((2, 3))),
    "largest": lambda: Of(lambda x: x.amax((2, 3))),
    "bilinear": lambda: Of(lambda x: F.interpolate(x, size=(13, 5), mode="bilinear")),
    "bilinear by 1.5": lambda: Of(lambda x: F.interpolate(x, scale_factor=1.5, mode="bilinear")),
    "bilinear of corners": lambda: Of(
        lambda x: F.interpolate(x, size=(4, 15), mode="bilinear", align_corners=True)
    ),
    "nearest": lambda: Of(lambda x: F.interpolate(x, size=(13, 5))),
    "PixelShuffle": lambda: nn.Sequential(nn.Conv2d(C, 8, 1), nn.PixelShuffle(2)),
    "Softmax of tokens": lambda: Rows(nn.Softmax(-1)),
    "Softmax of channels": lambda: Of(lambda x: x.softmax(1)),
    "attention": lambda: Rows(Attention(2)),
    "attention of torch": lambda: Rows(Attention(3, own=True)),
    "Pad of pixels": lambda: Of(lambda x: F.pad(x, (1, 2, 0, 3), value=0.1)),
    "Pad of channels": lambda: Of(strided_shortcut),
    "Pad of the last axis": lambda: Rows(Of(lambda x: F.pad(x, (3, 1, 0, 2)))),
    "Pad that cuts": lambda: Of(lambda x: F.pad(x, (-1, 2, 0, -2))),
    "Pad of edges": lambda: Of(lambda x: F.pad(x, (1, 2, 3, 1), mode="replicate")),
    "chunk": lambda: Of(gated),
    "split": lambda: Of(shuffled),
    "stack": lambda: Of(lambda x: torch.stack([x, F.relu(x)], 2)),
    "repeat": lambda: Of(lambda x: F.relu(x.repeat(1, 2, 1, 1))),
    "concat of pixels": lambda: Of(lambda x: torch.cat([x, F.relu(x)], 3)),
    "transposes": lambda: Of(lambda x: torch.tanh(x.transpose(1, 3)).transpose(1, 2)),
    "roll": lambda: Of(lambda x: torch.exp(x.roll((1, -2), (2, 3)))),
    "product of activations": lambda: Of(lambda x: x.flatten(2) @ x.flatten(2).mT),
    "squeeze and excitation": Excitation,
    "class token": lambda: Rows(Classed()),
    "Flatten": lambda: nn.Sequential(nn.Flatten(), nn.Linear(C * H * W, 5)),
}


class Network(nn.Module):
    """A binary product on a picture, and layers that read it; each is an output."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, C, 3, 2, 1)
        self.sign, self.product = binary.Binarize(), binary.BinaryLinear(C, C)
        self.layers = nn.ModuleList(layers)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        tokens = self.embed(image).flatten(2).transpose(1, 2)
        tokens = binary.tap("stream", tokens + self.product(self.sign(tokens)))
        picture = tokens.transpose(1, 2).reshape(-1, C, H, W)
        return {f"y{i}": layer(picture) for i, layer in enumerate(self.layers)}


def exported(layers: list[nn.Module], path) -> nn.Module:
    model = randomised(Network(layers), 1)
    vitc.export(model, path, example=torch.zeros(2, 3, 2 * H, 2 * W))
    return model


HALVES = [list(CASES)[half::2] for half in range(2)]
"""Names of the outputs of two networks: one has at most 64 ports."""


@pytest.fixture(scope="module")
def reports(tmp_path_factory) -> dict[str, LayerReport]:
    """What the check found of the output of each case."""
    found: dict[str, LayerReport] = {}
    for names in HALVES:
        folder = tmp_path_factory.mktemp("layers")
        torch.manual_seed(0)
        model = exported([CASES[name]() for name in names], folder / "m.onnx")
        native = compile_model(folder / "m.onnx", "native", folder / "native")
        report = check(native.path, model, CheckOptions(images=3, rebuild=False))
        assert not report.faults
        outputs = {layer.name: layer for layer in report.layers}
        found.update((name, outputs[f"y{i}"]) for i, name in enumerate(names))
    return found


@pytest.mark.parametrize("name", CASES)
def test_a_layer_is_compiled_to_what_float64_computes(name, reports):
    assert reports[name].values
    assert reports[name].equal, reports[name]


class Heads(nn.Module):
    """The attention of torch, which joins images and heads."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.MultiheadAttention(C, 2, batch_first=True)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.heads(tokens, tokens, tokens, need_weights=False)[0]


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "LogSoftmax": (lambda: nn.LogSoftmax(1), r"y0 \(LogSoftmax of y0\) is not compiled"),
    "Softplus": (nn.Softplus, r"\(Softplus of y0\) is not compiled"),
    "sin": (lambda: Of(torch.sin), r"y0 \(Sin of y0\) is not compiled"),
    "MultiheadAttention": (
        lambda: Rows(Heads()),
        r"\(MatMul of y0\) is not compiled: the axis of images does not come first",
    ),
    "floor": (
        lambda: Of(torch.floor),
        r"no rule for the rounding of aten\.floor\.default behind the tap stream",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_compiled_is_named_with_its_layer(name, tmp_path):
    def compiled(layer: nn.Module) -> None:
        exported([layer], tmp_path / "m.onnx")
        compile_model(tmp_path / "m.onnx", "native", tmp_path / "native")

    make, says = REFUSED[name]
    with pytest.raises(VitcError, match=says):
        compiled(make())
