"""How much memory a training run takes, told before it begins."""

from __future__ import annotations

import copy
import math
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from vitc.errors import VitcError
from vitc.models.network import Network
from vitc.training.losses import classification_loss
from vitc.training.parts import Parts

__all__ = ["MemoryNeed", "available", "check_memory", "estimate"]

_PROCESS: Final = 600e6
"""Bytes of Python, PyTorch and the libraries beside them."""

_WORK: Final = 2.5
"""Times what is kept for the backward pass: gradients, values that it does not need, and gaps. The
memory of a process grew by 1.7 (micro) to 2.4 (deit-tiny, 32 images) times of that."""

_PROBES: Final = 2

_ADAM: Final = 4
"""Weight, gradient and two moments."""

_SHARE: Final = 0.9
"""Of the available memory, for the batch size that is proposed."""

_FREE: Final = "MemAvailable:"
_CGROUPS: Final = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
    ),
)
"""Limit and use of a container, version 2 and 1."""


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes of a run.

    Attributes:
        fixed: Whatever the batch size is.
        image: For each image of a batch.
    """

    fixed: float
    image: float

    def of(self, batch_size: int) -> float:
        """Bytes with a batch size."""
        return self.fixed + self.image * batch_size


def estimate(model: Network, parts: Parts, label_smoothing: float) -> MemoryNeed:
    """Estimate what training a model takes.

    What autograd keeps of an image is counted in one forward pass of a copy.

    Args:
        model: The model, on the processor.
        parts: Its images; decoded pixels stay in memory where they are few.
        label_smoothing: Of the loss.
    """
    shadow = copy.deepcopy(model).train()
    own = {p.untyped_storage()._cdata for p in (*shadow.parameters(), *shadow.buffers())}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()._cdata
        if storage not in own:
            kept.setdefault(storage, tensor)
        return tensor

    shape = model.config.input_shape
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = shadow(torch.zeros((_PROBES, *shape)))
        targets = torch.zeros(_PROBES, dtype=torch.int64)
        classification_loss(logits, targets, label_smoothing)
    activations = sum(t.untyped_storage().nbytes() for t in kept.values()) / _PROBES
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    data = (parts.train, parts.validation, parts.test)
    pixels = sum(len(part) * math.prod(shape) for part in data if part.in_memory)
    return MemoryNeed(_PROCESS + _ADAM * weights + pixels, _WORK * activations)


def available(device: torch.device) -> float | None:
    """Bytes that a process can still take on a device; None if that cannot be told."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    if device.type != "cpu":
        return None
    found: list[float] = []
    with suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found += [float(line.split()[1]) * 1024 for line in lines if line.startswith(_FREE)]
    for limit, use in _CGROUPS:
        with suppress(OSError, ValueError):
            found.append(float(Path(limit).read_text()) - float(Path(use).read_text()))
    return min(found, default=None)


def check_memory(need: MemoryNeed, batch_size: int, room: float | None) -> str:
    """Compare what a run needs with what there is.

    Args:
        need: Of the run.
        batch_size: Of the run.
        room: Bytes; None if unknown.

    Returns:
        A sentence about it.

    Raises:
        VitcError: If it does not fit; the batch size that does is named.
    """
    wanted = need.of(batch_size)
    if room is None:
        return f"training takes about {_gigabytes(wanted)} of memory"
    if wanted <= room:
        return f"training takes about {_gigabytes(wanted)} of {_gigabytes(room)} of free memory"
    fits = int((_SHARE * room - need.fixed) / need.image)
    raise VitcError(
        f"Training with {batch_size} images a step takes about {_gigabytes(wanted)} of memory, and "
        f"{_gigabytes(max(room, 0))} are free.",
        f"Use --batch-size {fits}." if fits >= 1 else "Use a smaller preset, or a larger machine.",
    )


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.2g} GB" if size < 10e9 else f"{size / 1e9:.0f} GB"
