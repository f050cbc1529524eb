"""A teacher network that sees the student's images in its own preprocessing."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitc.errors import VitcError
from vitc.models import Network
from vitc.models.described import both
from vitc.models.twins.loading import load_teacher

__all__ = ["Teacher"]


class Teacher(nn.Module):
    """Logits of a checkpoint for images that were normalised for another network.

    Args:
        path: The teacher's checkpoint, or a folder, see `vitc.models.twins.loading`.
        student: Gives the classes and the preprocessing that the images have gone through.

    Raises:
        VitcError: If the checkpoint cannot be read or has other classes.
    """

    mean: Tensor
    gain: Tensor

    def __init__(self, path: Path, student: Network) -> None:
        super().__init__()
        self.network = load_teacher(path).requires_grad_(False)
        if self.network.config.classes != student.config.classes or (
            self.network.labels and student.labels and self.network.labels != student.labels
        ):
            raise VitcError(
                f"The teacher {path} has {self.network.config.classes} classes "
                f"({_some(self.network)}), the data {student.config.classes} ({_some(student)}).",
                "Choose a teacher that was trained on the same classes.",
            )
        own, theirs = self.network.preprocessing, student.preprocessing
        own_std, their_std = torch.tensor(own.std), torch.tensor(theirs.std)
        self.register_buffer("gain", (their_std / own_std)[:, None, None])
        shift = (torch.tensor(theirs.mean) - torch.tensor(own.mean)) / own_std
        self.register_buffer("mean", shift[:, None, None])
        self.size = both(own.crop)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """The student's images [B, 3, H, W] to the teacher's logits [B, classes]."""
        own = images * self.gain + self.mean
        if own.shape[-2:] != self.size:
            own = F.interpolate(own, size=self.size, mode="bilinear", antialias=True)
        logits: Tensor = self.network(own)
        return logits

    def train(self, mode: bool = True) -> Teacher:  # noqa: ARG002
        """Stay in eval mode: a teacher does not learn."""
        return super().train(False)


def _some(network: Network) -> str:
    return "unnamed" if network.labels is None else ", ".join(network.labels[:3]) + ", .."
