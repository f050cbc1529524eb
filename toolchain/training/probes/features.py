"""Features of a frozen network: the map before its last norm, and the mean of its places."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor

from vitc.errors import VitcError
from vitc.models.twins.loading import load_twin
from vitc.models.twins.twin import Twin

__all__ = ["encode", "frozen_twin"]


def frozen_twin(path: Path) -> Twin:
    """Read a full-precision network of any source, in eval mode.

    Raises:
        VitcError: As `load_twin`.
    """
    twin = load_twin(path)
    if not isinstance(twin, Twin):
        raise VitcError(f"{path} is a {twin.config.arch}, wanted a full-precision network.")
    return twin.requires_grad_(False).eval()


@torch.no_grad()
def encode(
    twin: Twin,
    batches: Iterable[Tensor],
    *,
    pooled: bool,
    done: Callable[[int], None] = lambda _: None,
) -> Tensor:
    """Features of images.

    Args:
        twin: The network.
        batches: Normalised images, [B, 3, H, W] each.
        pooled: Whether to take the mean of the places.
        done: Told after each batch how many images are through.

    Returns:
        fp32 [images, C], or [images, rows, columns, C].
    """
    found: list[Tensor] = []
    count = 0
    for images in batches:
        features = twin.on_map(twin.trunk(images))
        found.append(features.mean(dim=(1, 2)) if pooled else features.contiguous())
        count += len(images)
        done(count)
    return torch.cat(found)
