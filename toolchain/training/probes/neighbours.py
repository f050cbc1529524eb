"""Classes by the nearest features.

They are weighted as by Wu et al., Unsupervised Feature Learning via Non-Parametric Instance
Discrimination, CVPR 2018.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["nearest_classes"]

_TEMPERATURE: Final = 0.07
_AT_ONCE: Final = 512


def nearest_classes(
    known: Tensor, targets: Tensor, asked: Tensor, *, neighbours: int, classes: int
) -> Tensor:
    """Each of the k nearest by cosine votes for its class with exp(cosine / 0.07).

    Args:
        known: Features with classes, [n, C].
        targets: Their classes, int64 [n].
        asked: Features, [m, C].
        neighbours: k, at most n.
        classes: Number of classes.

    Returns:
        int64 [m]; of equal votes the first class.
    """
    own = F.normalize(known, dim=-1)
    guesses = []
    for part in torch.split(F.normalize(asked, dim=-1), _AT_ONCE):
        near, which = (part @ own.T).topk(neighbours, dim=1)
        votes = torch.zeros(len(part), classes)
        votes.scatter_add_(1, targets[which], (near / _TEMPERATURE).exp())
        guesses.append(votes.argmax(dim=1))
    return torch.cat(guesses)
