"""What a probe is asked to do, and what it finds."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitc.errors import VitcError
from vitc.models.picture import Colour
from vitc.paths import settle_paths

__all__ = ["DenseScore", "LinearScore", "NeighbourScore", "ProbeOptions", "ProbeResult"]


@dataclass(frozen=True)
class ProbeOptions:
    """A probe of a checkpoint.

    Attributes:
        checkpoint: A full-precision network, of any source that `vitc.load_twin` reads.
        data: ``digits`` or a folder of class folders; for `dense` a folder of pictures and masks,
            see `vitc.training.probes.masks`.
        linear: Whether to train a linear classifier on the features.
        knn: Whether to classify by the nearest features.
        dense: Whether to train a linear classifier of the places of the last map.
        background: Colour below transparent pixels, if not the checkpoint's.
        epochs: Of a linear classifier.
        batch_size: Images a step of it.
        learning_rate: For 256 images a step.
        neighbours: k.
        void: Value of a mask where nothing is known; none below 0.
        seed: Of its first weights and the order of the images.

    Raises:
        VitcError: If a value is out of range.
    """

    checkpoint: Path
    data: str = "digits"
    linear: bool = True
    knn: bool = True
    dense: bool = False
    background: Colour | None = None
    epochs: int = 90
    batch_size: int = 256
    learning_rate: float = 0.1
    neighbours: int = 20
    void: int = 255
    seed: int = 0

    def __post_init__(self) -> None:
        settle_paths(self)
        for name in ("epochs", "batch_size", "learning_rate", "neighbours"):
            if not getattr(self, name) > 0:
                raise VitcError(f"{name} must be positive, found {getattr(self, name)}.")
        if self.batch_size < 2:
            raise VitcError(
                "batch_size is 1.", "Features are normalised over a batch: take two or more."
            )
        if not (self.linear or self.knn or self.dense):
            raise VitcError("There is nothing to probe.", "Choose linear, knn or dense.")


@dataclass(frozen=True)
class LinearScore:
    """A linear classifier on frozen features, after its last epoch; shares in [0, 1].

    Attributes:
        accuracy: Of the test images.
        train_accuracy: Of the images that it learnt from.
        train_images: How many.
        test_images: How many.
    """

    accuracy: float
    train_accuracy: float
    train_images: int
    test_images: int


@dataclass(frozen=True)
class NeighbourScore:
    """Classes by the nearest features.

    Attributes:
        accuracy: Of the test images, in [0, 1].
        neighbours: k.
        train_images: Among which they are looked for.
        test_images: How many.
    """

    accuracy: float
    neighbours: int
    train_images: int
    test_images: int


@dataclass(frozen=True)
class DenseScore:
    """A linear classifier of the places of a map, after its last epoch; shares in [0, 1].

    Attributes:
        miou: Mean over classes of intersection by union, of all test pixels that are not void.
        pixel_accuracy: Of these pixels.
        iou: Of each class; None of one that is neither there nor guessed.
        map: Rows and columns of places.
        train_images: It learnt from.
        test_images: How many.
    """

    miou: float
    pixel_accuracy: float
    iou: tuple[float | None, ...]
    map: tuple[int, int]
    train_images: int
    test_images: int


@dataclass(frozen=True)
class ProbeResult:
    """What was found.

    Attributes:
        options: What was asked.
        checkpoint_sha256: Of the checkpoint.
        arch: Of the network.
        seconds: Wall time.
        linear: If asked for.
        knn: If asked for.
        dense: If asked for.
    """

    options: ProbeOptions
    checkpoint_sha256: str | None
    arch: str
    seconds: float
    linear: LinearScore | None
    knn: NeighbourScore | None
    dense: DenseScore | None

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        given = dataclasses.asdict(self)
        given["options"] |= {"checkpoint": str(self.options.checkpoint)}
        return given
