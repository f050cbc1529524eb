"""What a training run is asked to do, and what it reports."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from vitc.errors import VitcError
from vitc.models.picture import Colour

__all__ = ["EpochReport", "StepReport", "TrainOptions", "TrainResult"]


@dataclass(frozen=True)
class TrainOptions:
    """A training run.

    The defaults train `micro` on the digits; they were chosen for that on two CPU cores.

    Attributes:
        out: The checkpoint of the best epoch, ``.safetensors``. Beside it lie ``.last.pt`` (to
            resume), ``.png`` (curves) and ``.json`` (history).
        data: ``digits`` or a folder, see `vitc.training.data.load_dataset`; for what is kept for
            validation see `vitc.training.parts`.
        background: Colour below transparent pixels, kept in the checkpoint, if not the preset's.
        preset: Network to train, with the number of classes of the data.
        depth: Blocks, if not the preset's.
        si: Whether to have the spatial interaction branch, if not as the preset.
        scheme: Binarization scheme, a key of `vitc.models.schemes.SCHEMES`.
        elastic: Whether attention masks are the scheme's own (BiT's).
        full_precision: Whether to train the preset's full-precision twin instead of it.
        weight_bits: 32 for the first of the two training steps (32W1A), else 1.
        start: Checkpoint to begin from, such as that of the first step, or a twin of another
            program for a twin. An SI branch it lacks
            enters with scale 0 and so changes nothing at first (SI-BiViT, section 3).
        teacher: Checkpoint with the same classes to distil from, or a folder, of any source that
            `vitc.load_twin` reads.
        epochs: Passes over the training images.
        batch_size: Images a step (on each device).
        learning_rate: Peak of the schedule.
        warmup_epochs: Epochs of linear warm-up before the cosine.
        weight_decay: AdamW's, on matrices only.
        label_smoothing: Of the label loss.
        clip_norm: Largest norm of the gradient.
        augment: Small shifts, and mirror images unless the data are digits.
        seed: The same seed gives the same run on the same machine.
        threads: CPU threads; by default PyTorch's number, or one for networks so narrow that
            threads only wait for each other.
        resume: Go on from ``.last.pt``, with the same options; `epochs` may be more. The learning
            rate then follows the schedule of a run that had so many from its beginning.
        force: Replace the files of an earlier run.

    Raises:
        VitcError: If a value is out of range.
    """

    out: Path
    data: str = "digits"
    background: Colour | None = None
    preset: str = "micro"
    depth: int | None = None
    si: bool | None = None
    scheme: str = "bibert"
    elastic: bool = False
    full_precision: bool = False
    weight_bits: int = 1
    start: Path | None = None
    teacher: Path | None = None
    epochs: int = 40
    batch_size: int = 64
    learning_rate: float = 5e-3
    warmup_epochs: int = 3
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    clip_norm: float = 5.0
    augment: bool = True
    seed: int = 0
    threads: int | None = None
    resume: bool = False
    force: bool = False

    def __post_init__(self) -> None:
        if self.out.suffix != ".safetensors":
            raise VitcError(
                f"A checkpoint is written as .safetensors, found {self.out.name!r}.",
                f"Write to {self.out.stem}.safetensors.",
            )
        for name in ("epochs", "batch_size", "learning_rate", "clip_norm"):
            if not getattr(self, name) > 0:
                raise VitcError(f"{name} must be positive, found {getattr(self, name)}.")
        if self.threads is not None and self.threads < 1:
            raise VitcError(f"threads must be positive, found {self.threads}.")
        for name in ("warmup_epochs", "weight_decay"):
            if not getattr(self, name) >= 0:
                raise VitcError(f"{name} must not be negative, found {getattr(self, name)}.")
        if self.full_precision:
            self._refuse_bits()
        if not 0 <= self.label_smoothing < 1:
            raise VitcError(f"label_smoothing must lie in [0, 1), found {self.label_smoothing}.")

    def _refuse_bits(self) -> None:
        own = {field.name: field.default for field in fields(self)}
        chosen = ("si", "scheme", "elastic", "weight_bits")
        given = [name for name in chosen if getattr(self, name) != own[name]]
        if given and (given != ["si"] or self.si):
            raise VitcError(
                f"A full-precision twin has no {given[0]}: binarized networks choose that.",
                f"Leave --{given[0].replace('_', '-')} or --full-precision away.",
            )

    @property
    def last(self) -> Path:
        """State after the last finished epoch."""
        return self.out.with_suffix(".last.pt")

    @property
    def curve(self) -> Path:
        """Loss and validation accuracy over the epochs, as a picture."""
        return self.out.with_suffix(".png")

    @property
    def history(self) -> Path:
        """The same as JSON, with the test accuracy of the best epoch."""
        return self.out.with_suffix(".json")


@dataclass(frozen=True)
class EpochReport:
    """One finished epoch.

    Attributes:
        epoch: Counted from 1.
        epochs: Of how many.
        loss: Mean training loss.
        validation_accuracy: Top-1 on the validation images, in [0, 1].
        learning_rate: At the end of the epoch.
        seconds: Wall time of the epoch with its evaluation.
        images_per_second: Of its training, on this process's device.
    """

    epoch: int
    epochs: int
    loss: float
    validation_accuracy: float
    learning_rate: float
    seconds: float
    images_per_second: float = 0.0


@dataclass(frozen=True)
class StepReport:
    """One finished step of an epoch.

    Attributes:
        epoch: Counted from 1.
        step: Counted from 1.
        steps: Of how many in an epoch.
        images_per_second: So far in the epoch.
    """

    epoch: int
    step: int
    steps: int
    images_per_second: float


@dataclass(frozen=True)
class TrainResult:
    """A finished run.

    Attributes:
        checkpoint: The best epoch's weights.
        best_epoch: The one of the highest validation accuracy, the latest if several are equal;
            counted from 1.
        validation_accuracy: Of the best epoch, top-1 in [0, 1]; optimistic, as it was chosen by.
        test_accuracy: Of the checkpoint, top-1 on the test images in [0, 1]; nothing was chosen by
            it.
        history: One report an epoch.
        seconds: Wall time of all epochs, those before a resume included.
        curve: Picture of loss and validation accuracy.
        history_file: `history` and the accuracies as JSON.
    """

    checkpoint: Path
    best_epoch: int
    validation_accuracy: float
    test_accuracy: float
    history: tuple[EpochReport, ...]
    seconds: float
    curve: Path
    history_file: Path
