"""A teacher network that sees the student's images in its own preprocessing.

One that knows the classes teaches logits; one that was pre-trained without labels teaches what its
tokens are before the last norm.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitc.errors import VitcError
from vitc.models import Network
from vitc.models.described import both
from vitc.models.twins.loading import load_teacher
from vitc.training.twin_start import knows_classes

__all__ = ["FeatureTeacher", "Teacher", "last_tokens", "read_teacher"]


class _Frozen(nn.Module):
    """A network that does not learn, for images that were normalised for another one.

    Args:
        network: The teacher.
        student: Gives the preprocessing that the images have gone through.
    """

    mean: Tensor
    gain: Tensor

    def __init__(self, network: Network, student: Network) -> None:
        super().__init__()
        self.network = network.requires_grad_(False).eval()
        own, theirs = self.network.preprocessing, student.preprocessing
        own_std, their_std = torch.tensor(own.std), torch.tensor(theirs.std)
        self.register_buffer("gain", (their_std / own_std)[:, None, None])
        shift = (torch.tensor(theirs.mean) - torch.tensor(own.mean)) / own_std
        self.register_buffer("mean", shift[:, None, None])
        self.size = both(own.crop)

    def shown(self, images: Tensor) -> Tensor:
        """The student's images [B, 3, H, W] as the teacher takes them."""
        own = images * self.gain + self.mean
        if own.shape[-2:] != self.size:
            own = F.interpolate(own, size=self.size, mode="bilinear", antialias=True)
        return own

    def train(self, mode: bool = True) -> Self:  # noqa: ARG002
        """Stay in eval mode: a teacher does not learn."""
        return super().train(False)


class Teacher(_Frozen):
    """Logits of a checkpoint.

    Args:
        path: The teacher's checkpoint, or a folder, see `vitc.models.twins.loading`.
        student: Gives the classes and the preprocessing that the images have gone through.
        network: What `path` holds, if it has been read.

    Raises:
        VitcError: If the checkpoint cannot be read or has other classes.
    """

    def __init__(self, path: Path, student: Network, network: Network | None = None) -> None:
        super().__init__(load_teacher(path) if network is None else network, student)
        if self.network.config.classes != student.config.classes or (
            self.network.labels and student.labels and self.network.labels != student.labels
        ):
            raise VitcError(
                f"The teacher {path} has {self.network.config.classes} classes "
                f"({_some(self.network)}), the data {student.config.classes} ({_some(student)}).",
                "Choose a teacher that was trained on the same classes.",
            )

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """The student's images [B, 3, H, W] to the teacher's logits [B, classes]."""
        with self._exact(images.device.type):
            logits: Tensor = self.network(self.shown(images))
        return logits

    def _exact(self, device: str) -> AbstractContextManager[object]:
        """Without mixed precision where sums must be exact integers."""
        if self.network.config.binarized:
            return torch.autocast(device, enabled=False)
        return nullcontext()


class FeatureTeacher(_Frozen):
    """Tokens of a network that knows no classes, before its last norm.

    Args:
        network: The teacher.
        student: Its tokens are as many and as wide.

    Raises:
        VitcError: If they are not.
    """

    def __init__(self, network: Network, student: Network) -> None:
        super().__init__(network, student)
        own, theirs = (_tokens(one) for one in (student, network))
        if own != theirs:
            raise VitcError(
                f"The teacher {network.source_path} has {theirs[0]} tokens of {theirs[1]} channels "
                f"at its end, the network to train {own[0]} of {own[1]}.",
                "A teacher without classes teaches its tokens: choose one of the same preset.",
            )

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """The student's images [B, 3, H, W] to the teacher's tokens [B, N, C]."""
        with last_tokens(self.network) as tokens:
            self.network(self.shown(images))
        return tokens[0]


def read_teacher(path: Path, student: Network) -> Teacher | FeatureTeacher:
    """The teacher of a checkpoint: of logits, or of tokens if it was pre-trained without labels.

    Args:
        path: A checkpoint or a folder, see `vitc.models.twins.loading`.
        student: The network to train.

    Raises:
        VitcError: If it cannot be read or does not fit the student.
    """
    network = load_teacher(path)
    if knows_classes(network):
        return Teacher(path, student, network)
    return FeatureTeacher(network, student)


@contextmanager
def last_tokens(network: Network) -> Iterator[list[Tensor]]:
    """The tokens [B, N, C] that reach the last norm of a network in each forward pass.

    Args:
        network: Of any architecture; each has its last norm as `norm`.
    """
    found: list[Tensor] = []
    norm = network.get_submodule("norm")
    hook = norm.register_forward_pre_hook(lambda _, given: found.append(given[0]))
    try:
        yield found
    finally:
        hook.remove()


@torch.no_grad()
def _tokens(network: Network) -> tuple[int, int]:
    """Tokens and channels at the end of a network."""
    learning = network.training
    with last_tokens(network) as found:
        network.eval()(torch.zeros(1, *network.config.input_shape))
    network.train(learning)
    return found[0].shape[1], found[0].shape[2]


def _some(network: Network) -> str:
    return "unnamed" if network.labels is None else ", ".join(network.labels[:3]) + ", .."
