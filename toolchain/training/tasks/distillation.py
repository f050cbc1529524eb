"""What a network of a task learns from another one, mostly its full-precision twin (ours)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitc.errors import VitcError
from vitc.models.architectures.tasks import DetectionConfig, TaskConfig, trunk_maps
from vitc.models.checkpoint import load
from vitc.models.processes import counted
from vitc.models.tasks.network import TaskNetwork
from vitc.training.losses import Losses, normalised_difference
from vitc.training.tasks.losses import joined
from vitc.training.tasks.targets import Targets

__all__ = ["TaskTeacher", "box_distillation", "pixel_distillation"]

_CLASSES: Final = 0.5
_DISTANCES: Final = 0.1
_FARTHEST: Final = 6.0


class TaskTeacher:
    """A network to learn from, and the maps of both trunks.

    Args:
        path: Checkpoint of a network of the same task.
        student: What learns.

    Raises:
        VitcError: If it is of another task, or has other classes or maps.
    """

    def __init__(self, path: Path, student: TaskNetwork) -> None:
        found = load(path)
        own, theirs = student.config, found.config
        if not isinstance(theirs, TaskConfig) or theirs.arch != own.arch:
            raise VitcError(
                f"{path} is no network of {own.arch}.",
                f"Train a teacher with --task {own.arch} --full-precision.",
            )
        assert isinstance(found, TaskNetwork)  # noqa: S101 - of its configuration
        for what, mine, other in (
            ("classes", student.labels, found.labels),
            ("levels", own.levels, theirs.levels),
            ("maps", _shapes(own), _shapes(theirs)),
        ):
            if mine != other:
                raise VitcError(
                    f"{path} has other {what} than the network to train: {other}, wanted {mine}.",
                    "Train a teacher with the same data, preset and image size.",
                )
        self.network = found.eval().requires_grad_(False)
        self.own, self.theirs = (_Maps(network) for network in (student, self.network))

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Any:
        """What it says of normalised images [B, 3, H, W], in eval mode."""
        return self.network(images)

    def features(self) -> Tensor:
        """How far the directions of both trunks' maps lie apart, since both saw the same images."""
        return normalised_difference(self.own.maps, self.theirs.maps)


class _Maps:
    """Keeps what the pyramid of a network was last given."""

    def __init__(self, network: TaskNetwork) -> None:
        self.maps: Sequence[Tensor] = ()
        network.neck.register_forward_pre_hook(self._keep)

    def _keep(self, _: nn.Module, given: tuple[Sequence[Tensor], ...]) -> None:
        (self.maps,) = given


def _shapes(config: TaskConfig) -> list[tuple[int, int, int]]:
    return [(each.rows, each.columns, each.width) for each in trunk_maps(config.trunk)]


def box_distillation(
    maps: Mapping[str, Tensor],
    told: Mapping[str, Tensor],
    targets: Targets,
    config: DetectionConfig,
    features: Tensor,
) -> Losses:
    """Maps of the trunk, .5 cross-entropy of class probabilities, .1 L1 of log distances.

    Args:
        maps: What the student gives in training.
        told: What the teacher gives in eval mode.
        targets: Both sums are divided by the number of places with a box; distances are learnt
            there.
        config: Of the student.
        features: Of `TaskTeacher.features`.
    """
    strides = config.strides
    classes, boxes = (joined(maps, branch, strides).float() for branch in ("classes", "boxes"))
    wanted = joined(told, "classes", strides).float()
    logs = torch.cat(
        [(told[f"boxes_{s}"].float() / (2.0 * s)).log().flatten(1, 2) for s in strides], dim=1
    )
    found = targets.classes >= 0
    count = max(counted(int(found.sum()), classes), 1)
    share = counted(len(classes), classes) / len(classes) if len(classes) else 1.0
    soft = F.binary_cross_entropy_with_logits(classes, wanted, reduction="sum") * share / count
    apart = (boxes[found].clamp(max=_FARTHEST) - logs[found]).abs().sum() * share / count
    total = features + _CLASSES * soft + _DISTANCES * apart
    return Losses(total, {"features": features, "soft": soft, "distances": apart})


def pixel_distillation(logits: Tensor, told: Tensor, features: Tensor) -> Losses:
    """Maps of the trunk, and the cross-entropy of places against the teacher's softmax.

    Args:
        logits: Of the student, [B, h, w, K].
        told: Of the teacher, the same.
        features: Of `TaskTeacher.features`.
    """
    soft = F.cross_entropy(logits.float().flatten(0, 2), told.float().flatten(0, 2).softmax(dim=-1))
    return Losses(features + soft, {"features": features, "soft": soft})
