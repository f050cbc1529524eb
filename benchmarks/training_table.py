"""Table: images a second of training, beside the full-precision twin in plain PyTorch."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import torch
from contenders import pinned
from markdown import table
from PIL import Image
from torch.nn import functional as F

from vitc.models import build_network
from vitc.models.architectures import preset, twin_preset
from vitc.models.described import both
from vitc.training import TrainOptions, train
from vitc.training.dmjd.options import PretrainOptions
from vitc.training.dmjd.run import pretrain

__all__ = ["training_table"]

_BATCHES: Final = {
    "micro": 64,
    "mini": 64,
    "micro-swin": 64,
    "micro-pvt": 64,
    "micro-nest": 64,
    "deit-tiny": 8,
}
_PRETRAINED: Final = ("micro", "mini")
_CLASSES: Final = 2
_STEPS: Final = 6
_ROUNDS: Final = 3

Say = Callable[[str], None]


def training_table(say: Say) -> str:
    """Images a second on one core, in turns: `vitc train`, its twin, `vitc pretrain`."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="vitc-training-") as scratch, pinned(1):
        torch.set_num_threads(1)
        for name, batch in _BATCHES.items():
            say(f"training {name}")
            folder = Path(scratch) / name
            _pictures(folder, both(preset(name).preprocessing.crop), batch)
            turns = [(_own(folder, name, batch), _plain(name, batch)) for _ in range(_ROUNDS)]
            own, plain = (statistics.median(speeds) for speeds in zip(*turns, strict=True))
            more = f"{_views(folder, name, batch):.0f}" if name in _PRETRAINED else "-"
            rows.append(
                (name, str(batch), f"{own:.0f}", f"{plain:.0f}", f"{own / plain:.2f}", more)
            )
    columns = ("preset", ">batch", ">`vitc train`", ">twin, PyTorch", ">ratio", ">`vitc pretrain`")
    legend = (
        "Images a second: forward, backward, clipping, AdamW; of vitc with reading and "
        "augmentation. Pre-training is of the twin, DMJD with two views an image."
    )
    return f"{table(columns, rows)}\n\n{legend}"


def _pictures(folder: Path, sides: tuple[int, int], batch: int) -> None:
    """Noise in class folders, a few steps of it after a tenth is kept for validation."""
    draws = np.random.default_rng(0)
    count = (batch * _STEPS * 10 // 9 + _CLASSES) // _CLASSES + 1
    for part, pictures in (("train", count), ("test", 2)):
        for label in range(_CLASSES):
            below = folder / part / f"class {label}"
            below.mkdir(parents=True)
            for index in range(pictures):
                pixels = draws.integers(0, 256, (*sides, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(below / f"{index}.png")


def _own(folder: Path, name: str, batch: int) -> float:
    options = TrainOptions(
        out=folder / "m.safetensors",
        data=str(folder),
        preset=name,
        epochs=2,
        batch_size=batch,
        threads=1,
        force=True,
    )
    return train(options).history[-1].images_per_second


def _views(folder: Path, name: str, batch: int) -> float:
    options = PretrainOptions(
        out=folder / "p.safetensors",
        data=str(folder),
        preset=name,
        epochs=2,
        batch_size=batch,
        threads=1,
        force=True,
    )
    return pretrain(options).history[-1].images_per_second


def _plain(name: str, batch: int) -> float:
    chosen = twin_preset(name)
    network = build_network(chosen.config, chosen.preprocessing).train()
    optimizer = torch.optim.AdamW(network.parameters())
    images = torch.randn(batch, *chosen.config.input_shape)
    labels = torch.zeros(batch, dtype=torch.long)
    seconds = []
    for _ in range(_STEPS):
        began = time.perf_counter()
        loss = F.cross_entropy(network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        seconds.append(time.perf_counter() - began)
    return batch / statistics.median(seconds)
