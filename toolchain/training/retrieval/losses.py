"""The ranking loss of a batch, and the distillation of its scores."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = [
    "collapsed_value",
    "contrastive_loss",
    "distillation_entropy",
    "perfect_value",
    "ranking_loss",
    "shrink_loss",
]

_NORM: Final = 8
_EPSILON: Final = 1e-5


def ranking_loss(scores: Tensor, margin: float) -> Tensor:
    """Soft hardest negatives by an 8-norm, of both directions (Inflate and Shrink, section 3.1).

    The sum over the batch, not the mean. The pair itself is not taken out, so a perfect batch costs
    `perfect_value`.

    Args:
        scores: [B, B], a row an image, a column a text; pairs are on the diagonal.
        margin: By which a pair should score above what does not belong together.
    """
    pairs = scores.diagonal()
    by_image = (margin + scores - pairs[:, None]).clamp_min(0)
    by_text = (margin + scores - pairs[None, :]).clamp_min(0)
    return _norm(by_image, 1) + _norm(by_text, 0)


def _norm(excess: Tensor, axis: int) -> Tensor:
    return (excess.pow(_NORM).sum(dim=axis) + _EPSILON).pow(1 / _NORM).sum()


def contrastive_loss(scores: Tensor, scale: float) -> Tensor:
    """Cross entropy of each pair among all of the batch, the sum of both directions (ours).

    Twice `shrink_loss` where the teacher is sure of the pairs. All negatives have a share in its
    gradient, where that of `ranking_loss` is of the hardest ones, which are chance at first: from
    random parameters towers learn several times as fast.

    Args:
        scores: [B, B], a row an image, a column a text; pairs are on the diagonal.
        scale: The scores are multiplied by it before their softmax.
    """
    pairs = torch.arange(len(scores), device=scores.device)
    given = scale * scores
    rows, columns = (F.cross_entropy(each, pairs, reduction="sum") for each in (given, given.T))
    return rows + columns


def perfect_value(batch: int, margin: float) -> float:
    """What `ranking_loss` is where every pair scores far above all else."""
    return float(2 * batch * (margin**_NORM + _EPSILON) ** (1 / _NORM))


def collapsed_value(batch: int, margin: float) -> float:
    """What `ranking_loss` is where all scores are equal: nothing was learned."""
    return float(2 * batch * (batch * margin**_NORM + _EPSILON) ** (1 / _NORM))


def shrink_loss(
    teacher: Tensor, student: Tensor, *, teacher_scale: float, student_scale: float
) -> Tensor:
    """Cross entropy of the student's score distributions against the teacher's (section 3.3).

    Half the sum over rows and columns: for each image over the texts of the batch, for each text
    over the images. The teacher gets no gradient.

    Args:
        teacher: Scores [B, B].
        student: Scores [B, B] of the same batch.
        teacher_scale: The teacher's scores are multiplied by it before their softmax.
        student_scale: The student's.
    """
    wanted, given = teacher_scale * teacher.detach(), student_scale * student
    rows, columns = (
        -(wanted.softmax(dim=axis) * F.log_softmax(given, dim=axis)).sum() for axis in (1, 0)
    )
    return (rows + columns) / 2


def distillation_entropy(teacher: Tensor, teacher_scale: float) -> Tensor:
    """The least that `shrink_loss` can be: the entropy of the teacher's distributions."""
    return shrink_loss(
        teacher, teacher, teacher_scale=teacher_scale, student_scale=teacher_scale
    ).detach()
