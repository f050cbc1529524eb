"""The two losses: of the masked tokens' reconstruction and of the visible tokens' distillation."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

from vitc.errors import VitcError
from vitc.training.dmjd.masking import Views

__all__ = ["DISTANCES", "distance", "masked_loss", "visible_loss"]

DISTANCES: Final = ("l2", "smooth_l1")
_BETA: Final = 2.0


def distance(kind: str, predicted: Tensor, target: Tensor) -> Tensor:
    """Distance of each entry: its square, or the smooth absolute value with beta 2."""
    if kind == "l2":
        return (predicted - target).square()
    if kind == "smooth_l1":
        return F.smooth_l1_loss(predicted, target, reduction="none", beta=_BETA)
    raise VitcError(f"There is no distance {kind!r}; known: {', '.join(DISTANCES)}.")


def masked_loss(predicted: Tensor, target: Tensor, views: Views, kind: str = "l2") -> Tensor:
    """Loss of the invisible branch: the mean over masked tokens of the mean over channels.

    Args:
        predicted: In the order of the map, [K * B, tokens, C].
        target: In the order of the map, [B, tokens, C].
        views: What is masked.
        kind: One of `DISTANCES`.
    """
    mask = views.mask
    each = distance(kind, predicted, _of_views(target, views)).mean(dim=-1)
    return (each * mask).sum() / mask.sum()


def visible_loss(
    predicted: Tensor, target: Tensor, views: Views, kind: str = "smooth_l1"
) -> Tensor:
    """Loss of the visible branch: the mean over visible tokens and channels.

    The authors' code compares predictions in the order in which tokens were kept with targets in
    the order of the map; here the targets are taken in the order of the predictions.

    Args:
        predicted: In the order of `Views.keep`, [K * B, visible, C].
        target: In the order of the map, [B, tokens, C].
        views: What is visible.
        kind: One of `DISTANCES`.
    """
    places = views.keep[..., None].expand(-1, -1, target.shape[-1])
    own = torch.gather(_of_views(target, views), 1, places)
    return distance(kind, predicted, own).mean()


def _of_views(target: Tensor, views: Views) -> Tensor:
    """Targets of the images once for each view."""
    return target.repeat(len(views.keep) // max(len(target), 1), 1, 1)
