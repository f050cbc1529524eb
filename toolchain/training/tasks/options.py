"""What a training run of detection or segmentation is asked to do, and what comes out."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from vitc.errors import VitcError
from vitc.models.described import Sides
from vitc.models.picture import Colour
from vitc.names import TASKS, TOWERS
from vitc.training.options import EpochReport, RunOptions

__all__ = ["SCENE_SIZE", "TaskOptions", "TaskResult"]

SCENE_SIZE: Final = 64
"""Side of a picture in pixels, if nothing else is said."""


@dataclass(frozen=True, kw_only=True)
class TaskOptions(RunOptions):
    """A training run of a network that gives maps.

    The defaults train `micro-swin` on scenes of digits, in minutes of one core.

    Attributes:
        task: ``detection`` or ``segmentation``.
        data: See `vitc.training.tasks.data.load_task_parts`.
        background: Colour below transparent pixels, kept in the checkpoint, if not the preset's.
        preset: Whose backbone is the trunk.
        image_size: Side in pixels, or height and width; 64 by default.
        depth: As in `TrainOptions`, as all up to `weight_bits`.
        si: Whether to have the spatial interaction branch.
        mlp_ratio: Hidden over input width of the MLP.
        scheme: Binarization scheme.
        elastic: Whether attention masks are the scheme's own.
        norm: Norms of the stream.
        merge: What is computed between stages.
        weight_bits: 32 for the first of two steps, else 1.
        full_precision: Whether the trunk is the preset's full-precision twin.
        blocks: Whether the trunk has its blocks; without them the network is a control that shows
            what the rest does by itself.
        width: Channels of the pyramid and of the head.
        tower: Inner layers of the head, ``dense``, ``depthwise`` or ``pointwise``.
        binary_head: Whether the inner 1 x 1 layers of the head are binary.
        void: Value of mask pixels that belong to no class, beside 255.
        start: Checkpoint of the task to begin from: what fits is copied.
        teacher: Checkpoint of the task to distil from, mostly the full-precision twin.
        learning_rate: Peak of the schedule.
        warmup_epochs: Epochs of linear warm-up before the cosine.
        weight_decay: AdamW's, on matrices and convolutions only.
        augment: Mirror images and crops, boxes and masks with them; scenes are new in every epoch
            and need none.
        pictures_every: Epochs between pictures of predictions.

    Raises:
        VitcError: If a value is out of range, or an option is not of the task.
    """

    epochs: int = 10
    batch_size: int = 32
    task: str
    data: str = "digits"
    background: Colour | None = None
    preset: str = "micro-swin"
    image_size: Sides | None = None
    depth: int | None = None
    si: bool | None = None
    mlp_ratio: int | None = None
    scheme: str = "bibert"
    elastic: bool = False
    norm: str | None = None
    merge: str | None = None
    weight_bits: int = 1
    full_precision: bool = False
    blocks: bool = True
    width: int = 32
    tower: str = "dense"
    binary_head: bool = False
    void: int | None = None
    start: Path | None = None
    teacher: Path | None = None
    learning_rate: float = 4e-3
    warmup_epochs: int = 1
    weight_decay: float = 0.05
    augment: bool = True
    pictures_every: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        TASKS.check(self.task)
        TOWERS.check(self.tower)
        self._check_positive("learning_rate", "width", "pictures_every")
        self._check_not_negative("warmup_epochs", "weight_decay")
        if self.task == "detection" and self.void is not None:
            raise VitcError("--void is of masks, and boxes have none.", "Leave --void away.")
        if self.void is not None and not 0 <= self.void <= 255:
            raise VitcError(f"void is a value of a mask, from 0 to 255, found {self.void}.")

    @property
    def history(self) -> Path:
        """See `RunOptions.history`; its name leaves ``M.json`` to the result."""
        return self.out.with_suffix(".history.json")

    @property
    def shown(self) -> Path:
        """Predictions on pictures for validation."""
        return self.out.with_suffix(".predictions.png")


@dataclass(frozen=True)
class TaskResult:
    """What came out of a run.

    Attributes:
        checkpoint: The best epoch's weights.
        best_epoch: Counted from 1.
        validation: What the best epoch was chosen by, by name.
        test: Its figures on test pictures, by name.
        seconds: Wall time of all epochs.
        history: One report an epoch.
        files: Curve, history and pictures.
    """

    checkpoint: Path
    best_epoch: int
    validation: dict[str, float]
    test: dict[str, float]
    seconds: float
    history: tuple[EpochReport, ...] = field(repr=False)
    files: tuple[Path, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "checkpoint": str(self.checkpoint),
            "best_epoch": self.best_epoch,
            **{f"validation_{name}": value for name, value in self.validation.items()},
            **{f"test_{name}": value for name, value in self.test.items()},
            "seconds": self.seconds,
            "files": [str(file) for file in self.files],
        }
