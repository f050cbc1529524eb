"""What the examples share: training on the bundled digits, and the way from there to a library."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import vitc
from vitc.models import preset
from vitc.training.data import Dataset
from vitc.training.parts import load_parts

__all__ = ["run"]

_RATE = 4e-3
_BATCH = 64


def _whole(data: Dataset) -> tuple[Tensor, Tensor]:
    return data.__getitems__(range(len(data)))


Split = Callable[[Tensor], Mapping[str, Tensor]]
"""Of images [B, 3, 32, 32] what a network takes, or of digits [B] what it should say; by name."""


def _image(images: Tensor) -> Mapping[str, Tensor]:
    return {"image": images}


def _logits(digits: Tensor) -> Mapping[str, Tensor]:
    return {"logits": digits}


def _named(made: Tensor | Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    return {"logits": made} if isinstance(made, Tensor) else made


def train(
    model: nn.Module, epochs: int, seed: int, inputs: Split = _image, targets: Split = _logits
) -> dict[str, float]:
    """Train on the digits, 3 x 32 x 32 px.

    Args:
        model: What it takes to scores of classes [B, K], by name.
        epochs: Passes over the 1,300 training images.
        seed: Of their order.
        inputs: What it takes of images.
        targets: Of digits the classes that its outputs are scores of.

    Returns:
        By output, the share of the test images whose class is recognised.
    """
    parts = load_parts("digits", preset("micro").preprocessing)
    images, digits = _whole(parts.train)
    generator = torch.Generator().manual_seed(seed)
    steps = epochs * -(-len(images) // _BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    model.train()
    for _ in range(epochs):
        for chosen in torch.randperm(len(images), generator=generator).split(_BATCH):
            made, wanted = _named(model(**inputs(images[chosen]))), targets(digits[chosen])
            loss = torch.stack([F.cross_entropy(made[n], wanted[n]) for n in wanted]).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()
    images, digits = _whole(parts.test)
    with torch.no_grad():
        made, wanted = _named(model(**inputs(images))), targets(digits)
    return {n: float((made[n].argmax(1) == wanted[n]).float().mean()) for n in wanted}


def deliver(model: nn.Module, out: Path, target: str, device: str) -> dict[str, object]:
    """Compile an exported model and check it, layer by layer, against the PyTorch model."""
    folder = out / target
    vitc.compile(out / "model.onnx", folder, vitc.CompileOptions(target=target))
    report = vitc.check(folder, model, vitc.CheckOptions(device=device))
    return {
        "target": target,
        "device": report.device,
        "equal": report.equal,
        "first_difference": report.first_difference,
        "max_difference": {each.name: each.max_difference for each in report.outputs},
    }


def run(model: nn.Module, inputs: Split = _image, targets: Split = _logits) -> None:
    """Train, export, compile for this machine and for 64-bit ARM, check both; print it as JSON.

    Args:
        model: As in `train`.
        inputs: As in `train`.
        targets: As in `train`.
    """
    parser = argparse.ArgumentParser(description=type(model).__doc__)
    parser.add_argument("out", type=Path, help="folder to make")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True)
    accuracy = train(model, chosen.epochs, chosen.seed, inputs, targets)
    vitc.export(model, chosen.out / "model.onnx", example=inputs(torch.zeros(1, 3, 32, 32)))
    checks = [
        deliver(model, chosen.out, "native", "local"),
        deliver(model, chosen.out, "arm", "qemu"),
    ]
    shares = {name: round(share, 4) for name, share in accuracy.items()}
    print(json.dumps({"test_accuracy": shares, "checks": checks}, indent=2))
