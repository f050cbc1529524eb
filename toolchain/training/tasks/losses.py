"""Losses of detection and segmentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

from vitc.models.processes import counted, summed
from vitc.training.losses import Losses
from vitc.training.tasks.targets import Targets

__all__ = ["detection_loss", "focal", "generalised_overlap", "joined", "segmentation_loss"]

_ALPHA: Final = 0.25
_GAMMA: Final = 2.0
_BACKGROUND: Final = 0.3

_FOCAL: Final = 4.0
"""Weight of the focal loss: beside a softmax cross-entropy of weight 1 its gradients, which alone
say whether a digit counts, are lost (ours)."""


def joined(maps: Mapping[str, Tensor], branch: str, strides: Sequence[int]) -> Tensor:
    """The maps of a branch [B, H, W, C], all levels behind each other: [B, P, C]."""
    return torch.cat([maps[f"{branch}_{stride}"].flatten(1, 2) for stride in strides], dim=1)


def focal(logits: Tensor, targets: Tensor) -> Tensor:
    """Focal loss (Lin et al., ICCV 2017), alpha .25, gamma 2: of each, not summed."""
    probability = logits.sigmoid()
    wrong = torch.where(targets > 0, 1 - probability, probability)
    weight = torch.where(targets > 0, _ALPHA, 1 - _ALPHA)
    entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return weight * wrong**_GAMMA * entropy


def generalised_overlap(own: Tensor, wanted: Tensor) -> Tensor:
    """GIoU (Rezatofighi et al., CVPR 2019) of boxes told by distances l, t, r, b from one place.

    Args:
        own: [n, 4], positive.
        wanted: [n, 4], positive.

    Returns:
        [n], in (-1, 1].
    """

    def area(sides: Tensor) -> Tensor:
        return (sides[:, 0] + sides[:, 2]) * (sides[:, 1] + sides[:, 3])

    common, hull = area(torch.minimum(own, wanted)), area(torch.maximum(own, wanted))
    union = area(own) + area(wanted) - common
    return common / union - (hull - union) / hull


def detection_loss(
    maps: Mapping[str, Tensor], targets: Targets, strides: Sequence[int], class_weight: float = 1.0
) -> Losses:
    """Focal loss of classes, GIoU of boxes, cross-entropy of centreness, all by places with a box.

    The focal loss weighs 4 (ours), GIoU is weighted by centreness. Beside the focal loss, a softmax
    cross-entropy among the classes at places with a box: from scratch, classes are not learnt in
    minutes without it (ours).

    Args:
        maps: What a detector gives in training.
        targets: Of its places.
        strides: Of its levels.
        class_weight: Of the softmax cross-entropy.
    """
    classes, boxes, centreness = (
        joined(maps, branch, strides).float() for branch in ("classes", "boxes", "centreness")
    )
    found = targets.classes >= 0
    count = max(counted(int(found.sum()), classes), 1)
    # `_of_all` of the loop averages over examples; places are counted over the whole batch.
    share = counted(len(classes), classes) / len(classes) if len(classes) else 1.0
    wanted = F.one_hot(targets.classes.clamp(min=0), classes.shape[-1]) * found[..., None]
    per = share / count
    of_class = focal(classes, wanted.to(classes.dtype)).sum() * per
    own, label = classes[found], targets.classes[found]
    among = class_weight * F.cross_entropy(own, label, reduction="sum") * per
    scale = torch.cat(
        [classes.new_full((maps[f"boxes_{s}"][0, ..., 0].numel(),), 2.0 * s) for s in strides]
    )
    sides = boxes.clamp(max=6.0).exp() * scale[:, None]
    weight = targets.centreness[found]
    overlap = generalised_overlap(sides[found], targets.distances[found])
    whole = summed(weight.detach().sum()).clamp(min=1e-6)
    of_box = ((1 - overlap) * weight).sum() * share / whole
    middle = (
        F.binary_cross_entropy_with_logits(centreness[..., 0][found], weight, reduction="sum") * per
    )
    total = _FOCAL * of_class + among + of_box + middle
    parts = {"focal": of_class, "class": among, "box": of_box, "centreness": middle}
    return Losses(total, parts)


def segmentation_loss(logits: Tensor, masks: Tensor, background: int | None) -> Losses:
    """Cross-entropy of pixels; void is -1.

    With a class for everything else (of digit scenes) that class weighs 0.3, and a cross-entropy
    among the others is added where one of them is: without either the answer stays "nothing" for
    minutes (ours).

    Args:
        logits: [B, h, w, K].
        masks: int64 [B, H, W].
        background: Number of the class for everything else; None for none.
    """
    height, width = masks.shape[1:]
    larger = F.interpolate(
        logits.float().permute(0, 3, 1, 2), (height, width), mode="bilinear", align_corners=False
    )
    if background is None:
        return Losses(F.cross_entropy(larger, masks, ignore_index=-1))
    weight = larger.new_ones(larger.shape[1])
    weight[background] = _BACKGROUND
    whole = F.cross_entropy(larger, masks, weight, ignore_index=-1)
    others = [k for k in range(larger.shape[1]) if k != background]
    place = torch.full((larger.shape[1],), -1, device=masks.device)
    place[others] = torch.arange(len(others), device=masks.device)
    shown = torch.where(masks >= 0, place[masks.clamp(min=0)], -1)
    count = (shown >= 0).sum().clamp(min=1)
    among = F.cross_entropy(larger[:, others], shown, ignore_index=-1, reduction="sum") / count
    return Losses(whole + among, {"pixels": whole, "among": among})
