"""A network with what belongs to it: configuration, preprocessing, labels, origin."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from torch import Tensor, nn

from vitc.errors import VitcError
from vitc.models.binary_linear import freeze
from vitc.models.config import NetworkConfig
from vitc.models.described import sides_text
from vitc.models.preprocessing import Preprocessing

__all__ = ["SPATIAL_SCALE", "LoadReport", "Network"]

SPATIAL_SCALE: Final = "learnablescaling"
"""Last part of the name of a block's scale of its spatial branch."""


@dataclass(frozen=True)
class LoadReport:
    """What was seen while a checkpoint was read.

    Attributes:
        zero_weights: Per binary linear, how many centred latent weights are exactly zero (they
            count as +1; torch.sign would have made them 0). Layers without any are left out.
        weights: Number of binary weights.
        notes: Sentences for people, such as which state dict was taken.
        described: Whether the file says what the network is; else its shapes say what they can.
    """

    zero_weights: dict[str, int]
    weights: int
    notes: tuple[str, ...] = ()
    described: bool = True


class Network(nn.Module):
    """A classification network of any architecture; a subclass computes.

    Args:
        config: Sizes and scheme.
        preprocessing: How images become inputs; the DeiT evaluation if None.
        labels: Names of the classes, if known.

    Attributes:
        source_path: The checkpoint it was loaded from, or None.
        source_sha256: Its SHA-256, or None.
        load_report: What was seen while loading, or None.
        history: What a file says about its training (JSON values).

    Raises:
        VitcError: If labels and classes differ in number, or the image sizes differ.
    """

    config: NetworkConfig

    def __init__(
        self,
        config: NetworkConfig,
        preprocessing: Preprocessing | None = None,
        labels: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        if labels is not None and len(labels) != config.classes:
            raise VitcError(f"{len(labels)} labels were given for {config.classes} classes.")
        self.config = config
        self.preprocessing = preprocessing or Preprocessing.for_image_size(config.image_size)
        if self.preprocessing.crop != config.image_size:
            raise VitcError(
                f"The preprocessing crops to {sides_text(self.preprocessing.crop)} px but the "
                f"network takes {sides_text(config.image_size)} px."
            )
        self.labels: tuple[str, ...] | None = None if labels is None else tuple(labels)
        self.source_path: Path | None = None
        self.source_sha256: str | None = None
        self.load_report: LoadReport | None = None
        self.history: dict[str, Any] = {}

    @abstractmethod
    def forward(self, image: Tensor) -> Tensor:
        """Normalised images [B, 3, H, W] to logits [B, classes].

        Raises:
            VitcError: If the images are not of the network's size.
        """

    def maps(self, image: Tensor) -> list[Tensor]:  # noqa: ARG002
        """Normalised images [B, 3, H, W] to the stream after each stage, as maps [B, C, H', W'].

        Class tokens are left out, and the last norm is not in it.

        Raises:
            VitcError: If the images are not of the network's size, or it gives no maps.
        """
        raise VitcError(f"A {type(self).__name__} is no trunk: it gives no maps of the image.")

    def frozen(self) -> Self:
        """A deep copy in eval mode with sign bits instead of latent weights: what is exported."""
        return freeze(self)

    def check_images(self, image: Tensor) -> None:
        """Hold images against the size of the network.

        Raises:
            VitcError: If they are of another: norms and shifts belong to tokens, so there is no
                other size it could run on.
        """
        wanted = self.config.input_shape
        if image.ndim != 4 or tuple(image.shape[1:]) != wanted:
            raise VitcError(
                f"The network takes images [B, {', '.join(map(str, wanted))}], found "
                f"[{', '.join(str(n) for n in image.shape)}].",
                "Its norms belong to token positions; resize the images to that size.",
            )
