"""What a pre-training is asked to do, and what comes out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from vitc.errors import VitcError
from vitc.models.picture import Colour
from vitc.training.options import EpochReport, RunOptions

__all__ = ["METHODS", "PRETRAINING", "Method", "PretrainOptions", "PretrainResult"]


PRETRAINING: Final = "pretraining"
"""Where a checkpoint's history says that its network has learnt without labels."""


@dataclass(frozen=True)
class Method:
    """What is usual in a method; each may be chosen otherwise.

    Attributes:
        views: K.
        corruption: Share of a view that is masked.
        blocks: Whether blocks of 2 x 2 tokens are masked.
        target: What is predicted.
        theta: Weight of the visible branch; 0 for none.
    """

    views: int
    corruption: float
    blocks: bool
    target: str
    theta: float


METHODS: Final[Mapping[str, Method]] = MappingProxyType(
    {
        "dmjd": Method(views=2, corruption=0.6, blocks=True, target="hog", theta=1.0),
        "mae": Method(views=1, corruption=0.75, blocks=False, target="pixels", theta=0.0),
    }
)
"""DMJD as Ma et al. have it, MAE as He et al. (CVPR 2022)."""


@dataclass(frozen=True, kw_only=True)
class PretrainOptions(RunOptions):
    """A pre-training of a twin without labels. None stands for what is usual in the method.

    Attributes:
        method: A key of `METHODS`.
        data: ``digits`` or a folder of pictures, see `vitc.training.pictures.find_sources`.
        every: Whether all pictures of the folder are taken, those too that networks are judged by.
        skip_broken: Whether pictures that cannot be read are left out.
        background: Colour below transparent pixels, kept in the checkpoint, if not the preset's.
        preset: Whose full-precision twin is trained.
        depth: Blocks, if not the preset's.
        views: K, masked views of an image in a step.
        corruption: Share of a view that is masked.
        prediction: Share of an image that is masked in some view; 1 if there are several views, the
            corruption if there is one.
        blocks: Whether blocks of 2 x 2 tokens are masked, not single ones.
        target: ``hog``, ``pixels`` or ``teacher``.
        teacher: Network whose features are the target.
        theta: Weight of the visible branch; 0 for none.
        decoder_depth: Blocks of the invisible branch.
        decoder_width: Channels of both branches; half of the encoder's if None (ours).
        base_rate: Learning rate for 256 images a step, before
            `vitc.training.dmjd.schedule.adaptive_rate`.
        warmup_epochs: Of the rise; a twentieth of all if None, which is 20 of the paper's 400.
        weight_decay: AdamW's, on all but vectors.
        least_crop: Share of a picture that a crop has at least.
        pictures_every: Epochs from one picture of crops and masks to the next.
    """

    method: str = "dmjd"
    data: str = "digits"
    every: bool = False
    skip_broken: bool = False
    background: Colour | None = None
    preset: str = "micro"
    depth: int | None = None
    views: int | None = None
    corruption: float | None = None
    prediction: float | None = None
    blocks: bool | None = None
    target: str | None = None
    teacher: Path | None = None
    theta: float | None = None
    decoder_depth: int = 1
    decoder_width: int | None = None
    base_rate: float = 6e-4
    warmup_epochs: float | None = None
    weight_decay: float = 0.05
    least_crop: float = 0.5
    pictures_every: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.method not in METHODS:
            raise VitcError(f"There is no method {self.method!r}.", f"Known: {', '.join(METHODS)}.")
        self._check_positive("decoder_depth", "base_rate", "pictures_every")
        self._check_not_negative("weight_decay")
        if self.decoder_width is not None:
            self._check_positive("decoder_width")
        if not 0 < self.least_crop <= 1:
            raise VitcError(f"least_crop must lie in (0, 1], found {self.least_crop}.")
        if not self.chosen.theta >= 0:
            raise VitcError(f"theta must not be negative, found {self.theta}.")
        if self.warmup_epochs is not None and not 0 <= self.warmup_epochs < self.epochs:
            raise VitcError(
                f"The rate rises for {self.warmup_epochs} of {self.epochs} epochs.",
                "Take fewer --warmup-epochs.",
            )
        if (self.teacher is None) == (self.chosen.target == "teacher"):
            raise VitcError(
                "A teacher's features are the target, and there is no teacher."
                if self.teacher is None
                else f"There is a teacher, and the target is {self.chosen.target}.",
                "Give both --target teacher and --teacher CKPT, or neither.",
            )
        if self.chosen.views == 1 and self.prediction not in (None, self.chosen.corruption):
            raise VitcError(
                f"One view predicts what it masks, {self.chosen.corruption}; a prediction rate of "
                f"{self.prediction} was asked for.",
                "Leave --prediction away, or take two views.",
            )

    @property
    def chosen(self) -> Method:
        """What is chosen, or usual."""
        usual = METHODS[self.method]
        return Method(
            views=usual.views if self.views is None else self.views,
            corruption=usual.corruption if self.corruption is None else self.corruption,
            blocks=usual.blocks if self.blocks is None else self.blocks,
            target=usual.target if self.target is None else self.target,
            theta=usual.theta if self.theta is None else self.theta,
        )

    @property
    def predicted(self) -> float:
        """Share of an image that is masked in some view."""
        if self.prediction is not None:
            return self.prediction
        return self.chosen.corruption if self.chosen.views == 1 else 1.0

    @property
    def warmup(self) -> float:
        """Epochs of the rise."""
        return 0.05 * self.epochs if self.warmup_epochs is None else self.warmup_epochs

    @property
    def shown(self) -> Path:
        """Picture of crops, masks and, of pixels, what is rebuilt."""
        return self.out.with_suffix(".views.png")


@dataclass(frozen=True)
class PretrainResult:
    """A finished pre-training.

    Attributes:
        checkpoint: The twin after the last epoch; its head has learnt nothing.
        images: Pictures that were learnt from.
        effective_epochs: Epochs times views.
        loss: Of the last epoch.
        parts: Loss of each branch.
        history: One report an epoch.
        seconds: Wall time of all epochs, those before a resume included.
        curve: Losses over the epochs, as a picture.
        history_file: The same as JSON.
        shown: Crops, masks and, of pixels, what is rebuilt.
    """

    checkpoint: Path
    images: int
    effective_epochs: int
    loss: float
    parts: dict[str, float]
    history: tuple[EpochReport, ...]
    seconds: float
    curve: Path
    history_file: Path
    shown: Path
