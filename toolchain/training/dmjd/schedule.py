"""Learning rates: their base by how much of the images is predicted, their course, their decay."""

from __future__ import annotations

import math
import re
from typing import Final

__all__ = ["adaptive_rate", "layer_scale", "warm_cosine"]

_UNIT: Final = 256
_BLOCK: Final = re.compile(r"blocks\.(\d+)\.")
_FIRST: Final = ("cls_token", "dist_token", "pos_embed", "mask_token")


def adaptive_rate(base: float, batch: int, corruption: float, prediction: float) -> float:
    """Learning rate of a step (DMJD, section III-E): more targets of an image allow a larger one.

    Args:
        base: Rate for 256 images.
        batch: Different images of a step, all processes and accumulated batches together.
        corruption: Share of a view that is masked.
        prediction: Share of an image that is masked in some view.
    """
    return base * batch * (prediction / corruption) / _UNIT


def warm_cosine(
    rate: float, epoch: float, *, epochs: float, warmup: float, least: float = 0.0
) -> float:
    """Learning rate at a point of a run: a rise from 0, then half a cosine.

    Args:
        rate: The largest.
        epoch: Epochs that are done, with the fraction of the one that runs.
        epochs: Of the run.
        warmup: Epochs of the rise.
        least: Rate at the end.
    """
    if epoch < warmup:
        return rate * epoch / warmup
    share = (epoch - warmup) / (epochs - warmup)
    return least + (rate - least) * 0.5 * (1 + math.cos(math.pi * share))


def layer_scale(name: str, depth: int, decay: float) -> float:
    """Share of the learning rate that a parameter of a ViT gets: less in earlier layers.

    Args:
        name: Of the parameter.
        depth: Blocks of the network.
        decay: Factor from a layer to the one before it.
    """
    block = _BLOCK.match(name)
    if block is not None:
        layer = int(block[1]) + 1
    elif name.startswith(("patch_embed.", *_FIRST)):
        layer = 0
    else:
        layer = depth + 1
    return decay ** (depth + 1 - layer)
