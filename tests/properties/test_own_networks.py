"""Random networks of vitc.nn that nobody wrote: what is compiled is what float64 computes."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import vitc
from tests.randomised import randomised
from vitc import nn
from vitc.compiler import compile_model
from vitc.verify import CheckOptions, check

_spec = importlib.util.spec_from_file_location("shared", Path(__file__).with_name("conftest.py"))
shared = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(shared)

LAYERS = ("mlp", "mixing", "attention", "linear", "norm", "widen", "merge")


@dataclass(frozen=True)
class Plan:
    """A network as data: patch grid, head width, heads, layers, and how its tokens become one."""

    grid: int
    heads: int
    head_width: int
    layers: tuple[str, ...]
    mean: bool


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    return Plan(
        grid=draw(st.sampled_from([2, 4, 6])),
        heads=draw(st.integers(1, 3)),
        head_width=draw(st.integers(3, 24)),
        layers=tuple(draw(st.lists(st.sampled_from(LAYERS), min_size=1, max_size=4))),
        mean=draw(st.booleans()),
    )


class Linear(torch.nn.Module):
    """A binary linear whose integers meet a float operator."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.sign = nn.Binarize()
        self.linear = nn.BinaryLinear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.linear(self.sign(x)))


class Random(torch.nn.Module):
    """The network of a plan: images [B, 3, 2 * grid, 2 * grid] to logits [B, 5]."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.mean = plan.mean
        side, width = plan.grid, plan.heads * plan.head_width
        self.patches = nn.PatchEmbed(2, width)
        self.norms, self.layers = torch.nn.ModuleList(), torch.nn.ModuleList()
        self.kinds: list[tuple[str, int, int]] = []
        for kind in plan.layers:
            tokens = side * side
            if kind == "merge" and side % 2:
                continue
            self.kinds.append((kind, side, width))
            self.norms.append(nn.AxisNorm(tokens))
            if kind == "mlp":
                layer: torch.nn.Module = nn.BinaryMLP(width, width + 5, tokens)
            elif kind == "mixing":
                layer = nn.SpatialInteraction(width, tokens)
            elif kind == "attention":
                layer = nn.BinaryAttention(width, plan.heads, tokens)
            elif kind == "linear":
                layer = Linear(width)
            elif kind == "norm":
                layer = torch.nn.LayerNorm(width)
            elif kind == "widen":
                layer = torch.nn.Linear(width, 2 * width)
                width *= 2
            else:
                layer = torch.nn.Linear(4 * width, width)
                side //= 2
            self.layers.append(layer)
        self.last = torch.nn.LayerNorm(width)
        self.head = torch.nn.Linear(width, 5)

    def forward(self, image: Tensor) -> Tensor:
        x = nn.tap("embedding", self.patches(image))
        for index, (kind, side, width) in enumerate(self.kinds):
            norm, layer = self.norms[index], self.layers[index]
            if kind in ("widen", "norm"):
                x = layer(x)
            elif kind == "merge":
                half = side // 2
                fours = x.reshape(-1, half, 2, half, 2, width).permute(0, 1, 3, 2, 4, 5)
                x = layer(fours.reshape(-1, half * half, 4 * width))
            elif kind == "mixing":
                x = x + layer(x)
            else:
                x = x + layer(norm(x))
            x = nn.tap(f"stream.{index}", x)
        x = self.last(x)
        return nn.tap("logits", self.head(x.mean(dim=1) if self.mean else x[:, 0]))


@shared.examples(4)
@given(plans(), st.integers(0, 1000), st.integers(1, 3))
def test_a_random_network_is_compiled_to_what_float64_computes(
    tmp_path_factory, plan: Plan, seed: int, batch: int
) -> None:
    folder = tmp_path_factory.mktemp("network")
    model = randomised(Random(plan), seed)
    example = torch.zeros(2, 3, 2 * plan.grid, 2 * plan.grid)
    vitc.export(model, folder / "m.onnx", example=example)
    native = compile_model(folder / "m.onnx", "native", folder / "native", batch=batch)
    report = check(native.path, model, CheckOptions(images=3, rebuild=False))
    assert report.equal, (report.first_difference, report.faults)
    assert report.layers[-1].name == "logits"
