"""What a training run is asked to do, and what it reports."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from vitc.errors import VitcError
from vitc.models.described import Sides
from vitc.models.picture import Colour
from vitc.names import PRECISIONS, RECIPES
from vitc.paths import settle_paths

__all__ = ["EpochReport", "RunOptions", "StepReport", "TrainOptions", "TrainResult"]


_STAGES: Final = 3
"""Of the decoupled recipe."""


def _flag(name: str, value: object = None) -> str:
    """How an option is written."""
    return f"--{'no-' if value is False else ''}{name.replace('_', '-')}"


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What every run of the training loop is told, whatever it learns.

    Attributes:
        out: The checkpoint of the best epoch, ``.safetensors``. Beside it lie ``.last.pt`` (to
            resume), ``.png`` (curves) and ``.json`` (history).
        epochs: Passes over the training images.
        batch_size: Images a step, of all processes together.
        clip_norm: Largest norm of the gradient.
        seed: The same seed gives the same run on the same machine.
        mixed_precision: ``no``, or ``bf16``: products of training in bfloat16 (PyTorch's autocast).
            Parameters and everything that a checkpoint is judged by stay in fp32.
        threads: CPU threads; by default PyTorch's number, or one for networks so narrow that
            threads only wait for each other.
        resume: Go on from ``.last.pt``, with the same options; `epochs` may be more. The learning
            rate then follows the schedule of a run that had so many from its beginning.
        force: Replace the files of an earlier run.

    Raises:
        VitcError: If a value is out of range.
    """

    out: Path
    epochs: int = 40
    batch_size: int = 64
    clip_norm: float = 5.0
    seed: int = 0
    mixed_precision: str = "no"
    threads: int | None = None
    resume: bool = False
    force: bool = False

    def __post_init__(self) -> None:
        settle_paths(self)
        if self.out.suffix != ".safetensors":
            raise VitcError(
                f"A checkpoint is written as .safetensors, found {self.out.name!r}.",
                f"Write to {self.out.stem}.safetensors.",
            )
        self._check_positive("epochs", "batch_size", "clip_norm")
        PRECISIONS.check(self.mixed_precision)
        if self.threads is not None:
            self._check_positive("threads")

    def _check_positive(self, *names: str) -> None:
        for name in names:
            if not getattr(self, name) > 0:
                raise VitcError(f"{name} must be positive, found {getattr(self, name)}.")

    def _check_not_negative(self, *names: str) -> None:
        for name in names:
            if not getattr(self, name) >= 0:
                raise VitcError(f"{name} must not be negative, found {getattr(self, name)}.")

    @property
    def last(self) -> Path:
        """State after the last finished epoch."""
        return self.out.with_suffix(".last.pt")

    @property
    def curve(self) -> Path:
        """Losses and measures over the epochs, as a picture."""
        return self.out.with_suffix(".png")

    @property
    def history(self) -> Path:
        """The same as JSON, with what the best epoch was judged by."""
        return self.out.with_suffix(".json")


@dataclass(frozen=True, kw_only=True)
class TrainOptions(RunOptions):
    """A training run of a classification network.

    The defaults train `micro` on the digits; they were chosen for that on two CPU cores.

    Attributes:
        data: ``digits`` or a folder, see `vitc.training.data.load_dataset`; for what is kept for
            validation see `vitc.training.parts`.
        background: Colour below transparent pixels, kept in the checkpoint, if not the preset's.
        preset: Network to train, with the number of classes of the data.
        depth: Blocks, if not the preset's.
        si: Whether to have the spatial interaction branch, if not as the preset.
        mlp_ratio: Hidden over input width of the MLP, if not as the preset; twins have 4.
        scheme: Binarization scheme, a key of `vitc.models.schemes.SCHEMES`.
        elastic: Whether attention masks are the scheme's own (BiT's).
        norm: ``batch`` or ``layer``, if not as the preset.
        merge: ``float`` or ``binary``, what is computed between stages, if not as the preset.
        image_size: Side in pixels, or height and width, if not as the preset.
        full_precision: Whether to train the preset's full-precision twin instead of it.
        weight_bits: 32 for the first of the two training steps (32W1A), else 1.
        start: Checkpoint to begin from, such as that of the first step, or a twin of another
            program for a twin. An SI branch it lacks
            enters with scale 0 and so changes nothing at first (SI-BiViT, section 3).
        teacher: Checkpoint with the same classes to distil from, or a folder, of any source that
            `vitc.load_twin` reads.
        learning_rate: Peak of the schedule.
        warmup_epochs: Epochs of linear warm-up before the cosine.
        weight_decay: AdamW's, on matrices only.
        label_smoothing: Of the label loss.
        augment: Small shifts, and mirror images unless the data are digits.
        crop_scale: Smallest and largest share of an image that a random crop shows, enlarged; None
            for no crops. This and what follows come after `augment`, in the order of timm.
        hflip: Probability of a mirror image.
        erasing: Probability of a rectangle of noise.
        mixup: a of mixup's Beta(a, a); 0 for none.
        cutmix: a of CutMix's; 0 for none, and with both each step takes one of them.
        layer_decay: Of a full-precision run: share of the learning rate of a layer that the one
            before it has; .65 after a pre-training without labels, else 1.
        drop_path: Of a full-precision run: how often the last block's branches are left out; .1
            after a pre-training without labels, else 0.
        recipe: ``joint`` (all at once) or ``decoupled`` (the MLP branch learns from the teacher
            first, then the SI branch is added), a key of `vitc.training.recipes.RECIPES`.
        stage_epochs: Of the decoupled recipe: epochs with 32-bit weights, with 1-bit weights, and
            with the SI branch. By default a quarter, a quarter and the rest.
        mlp_weight: Of the decoupled recipe: of the distillation of MLP outputs, 0.1 by default.
        mlp_rate: Of the decoupled recipe: share of the learning rate that the MLP branch has beside
            the SI branch, 0.1 by default; 0 freezes it.

    Raises:
        VitcError: If a value is out of range.
    """

    data: str = "digits"
    background: Colour | None = None
    preset: str = "micro"
    depth: int | None = None
    si: bool | None = None
    mlp_ratio: int | None = None
    scheme: str = "bibert"
    elastic: bool = False
    norm: str | None = None
    merge: str | None = None
    image_size: Sides | None = None
    full_precision: bool = False
    weight_bits: int = 1
    start: Path | None = None
    teacher: Path | None = None
    learning_rate: float = 5e-3
    warmup_epochs: int = 3
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    augment: bool = True
    crop_scale: tuple[float, float] | None = None
    hflip: float = 0.0
    erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    layer_decay: float | None = None
    drop_path: float | None = None
    recipe: str = "joint"
    stage_epochs: tuple[int, int, int] | None = None
    mlp_weight: float | None = None
    mlp_rate: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        RECIPES.check(self.recipe)
        if self.recipe == "decoupled":
            self._check_decoupled()
        else:
            self._refuse("stage_epochs", "mlp_weight", "mlp_rate")
        self._check_positive("learning_rate")
        self._check_not_negative("warmup_epochs", "weight_decay", "mixup", "cutmix")
        for name in ("hflip", "erasing"):
            if not 0 <= getattr(self, name) <= 1:
                raise VitcError(
                    f"{name} is a probability, found {getattr(self, name)}.", "Give it in [0, 1]."
                )
        if self.crop_scale is not None and not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise VitcError(
                f"crop_scale is {self.crop_scale[0]} to {self.crop_scale[1]}.",
                "Give the smallest and the largest share, in (0, 1].",
            )
        if self.mlp_ratio is not None:
            self._check_positive("mlp_ratio")
        if self.full_precision:
            self._refuse_bits()
        self._check_fine_tuning()
        if not 0 <= self.label_smoothing < 1:
            raise VitcError(f"label_smoothing must lie in [0, 1), found {self.label_smoothing}.")

    def _check_fine_tuning(self) -> None:
        for name in ("layer_decay", "drop_path"):
            value = getattr(self, name)
            if value is not None and not self.full_precision:
                raise VitcError(
                    f"{name} is of full-precision networks, and a binarized one is trained.",
                    f"Leave {_flag(name)} away, or train with --full-precision.",
                )
        if self.layer_decay is not None and not 0 < self.layer_decay <= 1:
            raise VitcError(f"layer_decay must lie in (0, 1], found {self.layer_decay}.")
        if self.drop_path is not None and not 0 <= self.drop_path < 1:
            raise VitcError(f"drop_path must lie in [0, 1), found {self.drop_path}.")

    def _refuse(self, *names: str) -> None:
        for name in names:
            if getattr(self, name) is not None:
                raise VitcError(
                    f"A run of recipe {self.recipe} has no {name}.",
                    f"Leave {_flag(name)} away, or train with --recipe decoupled.",
                )

    def _check_decoupled(self) -> None:
        for name, wanted in (("si", True), ("full_precision", False), ("weight_bits", 1)):
            value = getattr(self, name)
            if value not in (wanted, None):
                raise VitcError(
                    f"The decoupled recipe has stages with and without SI, of 32-bit and of 1-bit "
                    f"weights; {name} was {value}.",
                    f"Leave {_flag(name, value)} or --recipe away.",
                )
        if self.teacher is None:
            raise VitcError(
                "The decoupled recipe distils from a full-precision twin, and there is no teacher.",
                "Train one with `vitc train --full-precision`, and name it by --teacher.",
            )
        if self.epochs < _STAGES:
            raise VitcError(
                f"The decoupled recipe has {_STAGES} stages, and there are {self.epochs} epochs.",
                f"Train for --epochs {_STAGES} or more.",
            )
        lengths = self.stage_lengths
        if min(lengths) < 1 or sum(lengths) != self.epochs:
            raise VitcError(
                f"The stages have {', '.join(map(str, lengths))} epochs, the run {self.epochs}.",
                "Give each of the three stages an epoch or more, as many as --epochs together.",
            )
        if self.mlp_weight is not None:
            self._check_not_negative("mlp_weight")
        if self.mlp_rate is not None and not 0 <= self.mlp_rate <= 1:
            raise VitcError(f"mlp_rate must lie in [0, 1], found {self.mlp_rate}.")

    @property
    def stage_lengths(self) -> tuple[int, int, int]:
        """Epochs of each stage of the decoupled recipe."""
        if self.stage_epochs is not None:
            return self.stage_epochs
        quarter = max(1, self.epochs // 4)
        return quarter, quarter, self.epochs - 2 * quarter

    def _refuse_bits(self) -> None:
        own = {field.name: field.default for field in fields(self)}
        chosen = ("si", "scheme", "elastic", "norm", "merge", "weight_bits")
        given = [name for name in chosen if getattr(self, name) != own[name]]
        if given and (given != ["si"] or self.si):
            raise VitcError(
                f"A full-precision twin has no {given[0]}: binarized networks choose that.",
                f"Leave --{given[0].replace('_', '-')} or --full-precision away.",
            )


@dataclass(frozen=True)
class EpochReport:
    """One finished epoch.

    Attributes:
        epoch: Counted from 1.
        epochs: Of how many.
        loss: Mean training loss.
        learning_rate: At the end of the epoch.
        seconds: Wall time of the epoch with its evaluation.
        images_per_second: Of its training, on this process's device.
        parts: What the loss is made of, by name; empty if it is of one piece.
        measures: What the epoch is judged by, by name.
        stage: What the stage of the run is; empty if there is but one.
    """

    epoch: int
    epochs: int
    loss: float
    learning_rate: float
    seconds: float
    images_per_second: float = 0.0
    parts: dict[str, float] = field(default_factory=dict)
    measures: dict[str, float] = field(default_factory=dict)
    stage: str = ""

    @property
    def validation_accuracy(self) -> float:
        """Top-1 on the validation images, in [0, 1], of a run of classification."""
        return self.measures["validation_accuracy"]

    def flat(self) -> dict[str, Any]:
        """The report as JSON values: measures beside the loss, and only what there is."""
        told = asdict(self)
        measures, parts, stage = (told.pop(name) for name in ("measures", "parts", "stage"))
        more = {"parts": parts} if parts else {}
        return {**told, **measures, **more, **({"stage": stage} if stage else {})}


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

    def __repr__(self) -> str:
        shares = f"{self.validation_accuracy:.2%} validation, {self.test_accuracy:.2%} test"
        return f"TrainResult({str(self.checkpoint)!r}, epoch {self.best_epoch}: {shares})"
