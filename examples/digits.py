"""What the examples share: training on the bundled digits, and the way from there to a library."""

from __future__ import annotations

import argparse
import json
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


def train(model: nn.Module, epochs: int, seed: int) -> float:
    """Train on the digits, 3 x 32 x 32 px.

    Args:
        model: Images [B, 3, 32, 32] to logits [B, 10].
        epochs: Passes over the 1,300 training images.
        seed: Of their order.

    Returns:
        The share of the test images that are recognised.
    """
    parts = load_parts("digits", preset("micro").preprocessing)
    images, targets = _whole(parts.train)
    generator = torch.Generator().manual_seed(seed)
    steps = epochs * -(-len(images) // _BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    model.train()
    for _ in range(epochs):
        for chosen in torch.randperm(len(images), generator=generator).split(_BATCH):
            loss = F.cross_entropy(model(images[chosen]), targets[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()
    images, targets = _whole(parts.test)
    with torch.no_grad():
        return float((model(images).argmax(1) == targets).float().mean())


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
        "max_logit_difference": report.max_logit_difference,
    }


def run(model: nn.Module) -> None:
    """Train, export, compile for this machine and for 64-bit ARM, check both; print it as JSON."""
    parser = argparse.ArgumentParser(description=type(model).__doc__)
    parser.add_argument("out", type=Path, help="folder to make")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True)
    accuracy = train(model, chosen.epochs, chosen.seed)
    vitc.export(model, chosen.out / "model.onnx", example=torch.zeros(1, 3, 32, 32))
    checks = [
        deliver(model, chosen.out, "native", "local"),
        deliver(model, chosen.out, "arm", "qemu"),
    ]
    print(json.dumps({"test_accuracy": round(accuracy, 4), "checks": checks}, indent=2))
