"""Training losses."""

from __future__ import annotations

from typing import Final

from torch import Tensor
from torch.nn import functional as F

__all__ = ["DISTILLATION_SHARE", "classification_loss"]

DISTILLATION_SHARE: Final = 0.95


def classification_loss(
    logits: Tensor, targets: Tensor, label_smoothing: float, teacher_logits: Tensor | None = None
) -> Tensor:
    """Label loss, or 0.95 distillation + 0.05 label loss if there is a teacher.

    The distillation term is the cross entropy of the student's log-softmax against the teacher's
    softmax at temperature 1 (SI-BiViT, official training code).

    Args:
        logits: [B, classes].
        targets: int64 [B].
        label_smoothing: Of the label loss.
        teacher_logits: [B, classes].

    Returns:
        A scalar, the mean over the batch.
    """
    label = F.cross_entropy(logits, targets, label_smoothing=label_smoothing)
    if teacher_logits is None:
        return label
    distilled = F.cross_entropy(logits, teacher_logits.softmax(dim=-1))
    return DISTILLATION_SHARE * distilled + (1 - DISTILLATION_SHARE) * label
