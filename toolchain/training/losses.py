"""Training losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

from vitc.models.processes import processes, summed

__all__ = [
    "DISTILLATION_SHARE",
    "Losses",
    "added",
    "classification_loss",
    "normalised_difference",
]

DISTILLATION_SHARE: Final = 0.95
_BETA: Final = 2.0
_TINY: Final = 1e-12


@dataclass(frozen=True, eq=False)
class Losses:
    """Losses of a batch, each a scalar and a mean over its examples.

    Attributes:
        total: What is made smaller.
        parts: What it is made of, by name, to be told; empty if it is of one piece.
    """

    total: Tensor
    parts: Mapping[str, Tensor] = field(default_factory=dict)


def added(one: Losses, other: Losses) -> Losses:
    """The sum of both, of the parts of both."""
    parts = {name: loss for each in (one, other) for name, loss in each.parts.items()}
    return Losses(one.total + other.total, parts)


def classification_loss(
    logits: Tensor, targets: Tensor, label_smoothing: float, teacher_logits: Tensor | None = None
) -> Losses:
    """Label loss, or 0.95 distillation + 0.05 label loss if there is a teacher.

    The distillation term is the cross entropy of the student's log-softmax against the teacher's
    softmax at temperature 1 (SI-BiViT, official training code).

    Args:
        logits: [B, classes].
        targets: int64 [B], or the share of each class, [B, classes].
        label_smoothing: Of the label loss.
        teacher_logits: [B, classes].

    Returns:
        The mean over the batch; with a teacher its parts `label` and `distillation`, unweighted.
    """
    label = F.cross_entropy(logits, targets, label_smoothing=label_smoothing)
    if teacher_logits is None:
        return Losses(label)
    distilled = F.cross_entropy(logits, teacher_logits.softmax(dim=-1))
    total = DISTILLATION_SHARE * distilled + (1 - DISTILLATION_SHARE) * label
    return Losses(total, {"label": label, "distillation": distilled})


def with_features(label: Losses, own: Tensor, wanted: Tensor) -> Losses:
    """The label loss plus the distance of tokens from those of a teacher that knows no classes.

    Both are normalised over channels (layer norm without affine); the distance is smooth L1 with
    beta 2, as in the visible branch of DMJD. The sum is ours.

    Args:
        label: Of the logits.
        own: Tokens before the last norm, [B, N, C].
        wanted: Those of the teacher.

    Returns:
        The sum; its parts `label` and `features`.
    """
    width = own.shape[-1:]
    a, b = (F.layer_norm(tokens.float(), width) for tokens in (own, wanted))
    features = F.smooth_l1_loss(a, b, beta=_BETA)
    return Losses(label.total + features, {"label": label.total, "features": features})


def normalised_difference(own: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
    """``sum over pairs of || a / ||a|| - b / ||b|| ||``, Frobenius norms over the batch's tensor.

    Of each pair only the direction counts, so it lies in [0, 2] whatever the scales are (SI-BiViT,
    official training code, where it is commented out).

    Args:
        own: Tensors of any shape, images along the first axis; gradients go here.
        wanted: As many of the same shapes.

    Returns:
        A scalar, of the batch of all processes.
    """
    pairs = zip(own, wanted, strict=True)
    return torch.stack([_norm(_unit(a) - _unit(b)) for a, b in pairs]).sum()


def _unit(tensor: Tensor) -> Tensor:
    return tensor.float() / _norm(tensor.float()).clamp(min=_TINY)


def _norm(tensor: Tensor) -> Tensor:
    """Of a tensor whose first axis may be split over processes."""
    if processes() == 1:
        own: Tensor = torch.linalg.vector_norm(tensor)
        return own
    return summed(tensor.square().sum()).clamp(min=_TINY**2).sqrt()
