"""What a training of retrieval is asked to do, and what comes out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vitc.errors import VitcError
from vitc.models.described import Sides
from vitc.names import GLYPHS, RETRIEVAL_MODES
from vitc.training.options import EpochReport, RunOptions

__all__ = ["RetrievalOptions", "RetrievalResult", "ShrinkOptions"]


@dataclass(frozen=True, kw_only=True)
class _Learnt(RunOptions):
    """What training and shrinking share.

    Attributes:
        data: ``glyphs``, or a folder, see `vitc.training.retrieval.caption_folder`.
        start: Full-precision twin that the image tower begins with.
        float_epochs: Of the epochs, those in which the full-precision twin of binarized towers
            learns first; the larger half if None.
        learning_rate: Peak of the schedule.
        packed_rate: The same of binarized towers that follow their twin.
        warmup_epochs: Epochs of linear warm-up before the cosine.
        weight_decay: AdamW's, on matrices only.
    """

    epochs: int = 16
    batch_size: int = 64
    clip_norm: float = 2.0
    data: str = GLYPHS
    start: Path | None = None
    float_epochs: int | None = None
    learning_rate: float = 2e-3
    packed_rate: float = 5e-3
    warmup_epochs: float = 1.0
    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_positive("learning_rate", "packed_rate")
        if self.float_epochs is not None:
            self._check_not_negative("float_epochs")
        self._check_not_negative("warmup_epochs", "weight_decay")


@dataclass(frozen=True, kw_only=True)
class RetrievalOptions(_Learnt):
    """A training of both towers by the ranking loss.

    Attributes:
        mode: A key of `vitc.models.retrieval.modes.MODES`.
        preset: Backbone of the image tower.
        full_precision: Whether that is the preset's full-precision twin.
        floats: Whether vectors are floats; else they are signs.
        image_size: Side in pixels, or height and width, if not as the preset.
        depth: Blocks of the backbone, if not the preset's.
        si: Whether it has the spatial interaction branch, if not as the preset.
        scheme: Its binarization scheme.
        width: d, length of a vector.
        codes: k of each side, in mode inflate.
        length: n, word pieces of a text; by default what the longest caption takes, at most 32.
        vocabulary: The most word pieces.
        text_width: Channels of the text tower.
        text_layers: Its layers.
        contrast: By what the mean product of a text's vectors with an image's is multiplied in a
            cross entropy beside the ranking loss (ours); 0 for the ranking loss alone, the paper's.

    Raises:
        VitcError: If a value is out of range.
    """

    mode: str = "base"
    preset: str = "micro"
    full_precision: bool = False
    floats: bool = False
    image_size: Sides | None = None
    depth: int | None = None
    si: bool | None = None
    scheme: str = "bibert"
    width: int = 256
    codes: int | None = None
    length: int | None = None
    vocabulary: int = 2048
    text_width: int = 128
    text_layers: int = 2
    contrast: float = 16.0

    def __post_init__(self) -> None:
        super().__post_init__()
        RETRIEVAL_MODES.check(self.mode)
        self._check_positive("width", "vocabulary", "text_width", "text_layers")
        self._check_not_negative("contrast")
        if self.codes is not None:
            self._check_not_negative("codes")
            if self.codes and self.mode != "inflate":
                raise VitcError(
                    f"Mode {self.mode} has no codes, and {self.codes} were asked for.",
                    "Leave --codes away, or train with --mode inflate.",
                )
        if self.length is not None:
            self._check_positive("length")
        if self.full_precision and (self.si or self.scheme != "bibert"):
            raise VitcError(
                "A full-precision twin has neither SI nor a scheme: binarized networks have.",
                "Leave --si and --scheme, or --full-precision away.",
            )


@dataclass(frozen=True, kw_only=True)
class ShrinkOptions(_Learnt):
    """A distillation of the scores of one pair of towers to another with fewer interactions.

    Attributes:
        teacher: Checkpoint whose scores are learnt.
        to: ``base`` or ``fast``: the student's mode.
        float_epochs: As of training, but with fresh encoders; by default there are none, and the
            student begins with the teacher's encoders.

    Raises:
        VitcError: If a value is out of range.
    """

    epochs: int = 5
    float_epochs: int | None = 0
    teacher: Path
    to: str

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.to not in ("base", "fast"):
            raise VitcError(
                f"Towers are shrunken to base or fast, found {self.to!r}.", "Choose one of them."
            )


@dataclass(frozen=True)
class RetrievalResult:
    """A finished run.

    Attributes:
        checkpoint: The best epoch's towers.
        best_epoch: The one of the highest mean recall on validation pictures, counted from 1.
        validation: Its recalls there, in [0, 1], by name; optimistic, as it was chosen by them.
        test: Recalls of the checkpoint on the test pictures, which nothing was chosen by.
        chance: What guessing would give there.
        test_images: Test pictures.
        test_texts: Their captions.
        history: One report an epoch.
        seconds: Wall time of all epochs, those before a resume included.
        curve: Picture of loss and recall.
        history_file: All of it as JSON.
    """

    checkpoint: Path
    best_epoch: int
    validation: Mapping[str, float]
    test: Mapping[str, float]
    chance: Mapping[str, float]
    test_images: int
    test_texts: int
    history: tuple[EpochReport, ...]
    seconds: float
    curve: Path
    history_file: Path
