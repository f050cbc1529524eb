"""How far a network with an integer embedding or int8 ends is from what it was rounded from.

Both run in fp32 in PyTorch, on the same pictures; a network that takes bytes is given those, the
other one those normalised. A check says what it finds; nothing follows from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import torch

from vitc.models.network import Network
from vitc.models.taps import TapEvent, observe
from vitc.verify.comparison import Images
from vitc.verify.report import Accuracy, Rounded

__all__ = ["rounded_by"]

_BATCH: Final = 16
_IN_KERNELS: Final = ".mask"
"""End of the names of bits that are decided by integers alone."""


@dataclass
class _Counts:
    bits: int = 0
    differing: int = 0


@torch.inference_mode()
def rounded_by(plain: Network, rounded: Network, images: Images) -> Rounded:
    """Compare both.

    Args:
        plain: The network in fp32.
        rounded: What `with_embedding` or `with_ends` made of it.
        images: As `rounded` takes them.
    """
    networks = [network.frozen().eval() for network in (plain, rounded)]
    counts, classes = _Counts(), [list[np.ndarray[Any, Any]](), list[np.ndarray[Any, Any]]()]
    for start in range(0, len(images.inputs), _BATCH):
        numbers = list(range(start, min(start + _BATCH, len(images.inputs))))
        pixels = next(iter(images.inputs[numbers].values()))
        normal = pixels
        if rounded.config.takes_bytes:
            normal = plain.preprocessing.normalise(np.moveaxis(pixels, 1, -1))
        found: list[list[torch.Tensor]] = [[], []]
        for own, network, given, bits in zip(
            classes, networks, (normal, pixels), found, strict=True
        ):
            with observe(partial(_keep, bits)):
                made = network(torch.from_numpy(np.ascontiguousarray(given)))
            if isinstance(made, torch.Tensor):
                own.append(made.argmax(1).numpy())
        for one, other in zip(*found, strict=True):
            counts.bits += one.numel()
            counts.differing += int((one != other).sum())
    same, accuracy = None, None
    if all(classes):
        left, right = (np.concatenate(own) for own in classes)
        same = float((left == right).mean())
        if images.labels is not None:
            shares = ((own == images.labels).mean() for own in (left, right))
            accuracy = Accuracy(*map(float, shares))
    return Rounded(
        rounded.config.rounded,
        len(images.inputs),
        counts.differing / max(1, counts.bits),
        same,
        accuracy,
    )


def _keep(bits: list[torch.Tensor], event: TapEvent) -> None:
    if event.kind == "bits" and not event.name.endswith(_IN_KERNELS):
        bits.append(event.value.clone())
