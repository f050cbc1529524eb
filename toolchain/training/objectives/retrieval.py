"""Text-image retrieval: towers learn by ranking, or shrink by another's scores."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Final

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional as F

from vitc.errors import VitcError
from vitc.models import load, preset
from vitc.models.architectures import twin_preset
from vitc.models.architectures.retrieval import RETRIEVAL, RetrievalConfig
from vitc.models.binary_linear import begin_epoch
from vitc.models.build import build_network
from vitc.models.checkpoint import write_checkpoint
from vitc.models.network import Network
from vitc.models.preprocessing import Preprocessing
from vitc.models.retrieval.modes import MODES
from vitc.models.retrieval.network import IMAGE, TEXT, Retrieval
from vitc.models.retrieval.scores import late_interaction
from vitc.models.retrieval.word_pieces import WordPieces, learn_pieces
from vitc.models.twins.loading import load_twin
from vitc.names import GLYPHS
from vitc.outputs import FileOutput
from vitc.training.augmentation import mirror, shift
from vitc.training.losses import Losses
from vitc.training.memory import MemoryNeed
from vitc.training.objectives.objective import Best, Ended
from vitc.training.objectives.scheduled import Scheduled
from vitc.training.progress_files import write_curve, write_history
from vitc.training.provenance import described, earlier_test, provenance
from vitc.training.retrieval.caption_folder import read_caption_folder
from vitc.training.retrieval.captioned import CaptionData, Pairs
from vitc.training.retrieval.glyphs import Glyphs
from vitc.training.retrieval.judged import Judged, all_scores, chance, mean_recall, recalls
from vitc.training.retrieval.losses import (
    collapsed_value,
    contrastive_loss,
    distillation_entropy,
    perfect_value,
    ranking_loss,
    shrink_loss,
)
from vitc.training.retrieval.options import RetrievalOptions, RetrievalResult, ShrinkOptions
from vitc.training.start import fresh_scales
from vitc.training.twin_start import copy_twin

__all__ = ["Ranking", "Shrinking"]

_RECALL: Final = "mean_recall"
_TEST: Final = "test"
_NARROW: Final = 128
_APART: Final = "apart"

_LONGEST: Final = 32
_MULTIPLE: Final = 4
_MOST: Final = 0.95
"""Share of the captions that are not cut."""

_INFLATED: Final = 8
"""Codes of each side by default; the paper has 32 beside 32 tokens."""

_FRONT_END: Final = (
    "text.word.weight",
    "text.positions",
    "image.patch_embed.",
    "image.cls_token",
    "image.pos_embed",
    "image.stages.0.patch_embed.",
    "image.stages.0.pos_embed",
)
"""How parameters begin that make rows of words and of pixels: a student takes them as they are."""

_PLACES: Final = "pos_embed"
_PLACES_STD: Final = 0.3
"""Of positions before the first step. Patches are about as large; beside them the usual 0.02 is so
little that captions that name a place ("at the left") are learnt an epoch or two later."""

_MOST_JUDGED: Final = 256
"""Validation pictures that an epoch is judged by."""

_SCALES: Final[Mapping[str, tuple[float, float]]] = {"base": (16.0, 16.0), "fast": (2.0, 16.0)}
"""By what a teacher's and a student's scores are multiplied (Inflate and Shrink, official code)."""


def read_data(spec: str, seed: int, note: Callable[[str], None]) -> CaptionData:
    """``glyphs``, or a folder of pictures with captions.

    Raises:
        VitcError: As `read_caption_folder`.
    """
    return Glyphs(seed) if spec == GLYPHS else read_caption_folder(Path(spec), note)


class _Guided(nn.Module):
    """Towers, and behind the stage of the twin its image tower, whose vectors theirs follow.

    Args:
        towers: What learns.
        guide: The twin's towers, frozen; None for none.
    """

    def __init__(self, towers: Retrieval, guide: Retrieval | None = None) -> None:
        super().__init__()
        self.towers = towers
        self.guide = None if guide is None else guide.requires_grad_(False)

    def forward(self, pixels: Tensor, words: Tensor) -> dict[str, Tensor]:
        """As `Retrieval.forward`; with a guide `apart` alone.

        That is, of each image [B], the mean of 1 - cos from its vectors to the guide's.
        """
        if self.guide is None:
            given: dict[str, Tensor] = self.towers(pixels, words)
            return given
        self.guide.eval()
        with torch.no_grad():
            wanted = self.guide.image_rows(pixels)
        rows = self.towers.image_rows(pixels)
        return {_APART: (1 - F.cosine_similarity(rows, wanted, dim=-1)).mean(1)}


class _Towers(Scheduled[RetrievalResult]):
    """What both ways to learn share: data, AdamW with warm-up and cosine, recall.

    Binarized towers have two stages (ours: from random parameters the ranking loss lets them
    collapse). Their full-precision twin learns first, whose vectors are signs already where theirs
    will be: so the text tower is done then. The image tower then begins with what fits it of the
    twin's, and follows its vectors.
    """

    model: _Guided
    examples: Pairs
    options: RetrievalOptions | ShrinkOptions
    start: Network | None

    def _begin(
        self,
        config: RetrievalConfig,
        shown: Preprocessing,
        data: CaptionData,
        note: Callable[[str], None],
    ) -> None:
        options = self.options
        self.note = note
        self.config, self.shown, self.data = config, shown, data
        self.start = None if options.start is None else load_twin(options.start)
        before = options.float_epochs
        if before is None:
            before = -(-options.epochs // 2)
        self.twin = None
        if config.binarized and before:
            if before >= options.epochs:
                raise VitcError(
                    f"{before} of {options.epochs} epochs are of the full-precision twin.",
                    "Give fewer --float-epochs, or more --epochs.",
                )
            self.twin = _twin_of(config, self.start)
            self.stages = (before, options.epochs - before)
        else:
            self.stages = (options.epochs,)
        self.model = _Guided(self._made(self.twin or config))
        if self.start is not None:
            note(copy_twin(self.start, self.model.towers.image))
        words = WordPieces(config.pieces, config.length)
        self.examples = Pairs(data, shown, words, self.options.seed)
        self.judged = Judged.of(data.validation[:_MOST_JUDGED], shown, words)
        self.words = words
        self.mean, self.std = (
            255 * torch.tensor(values)[:, None, None] for values in (shown.mean, shown.std)
        )
        self.threads = 1 if config.widest <= _NARROW else None

    def _made(self, config: RetrievalConfig) -> Retrieval:
        """Fresh towers."""
        model = build_network(config, self.shown)
        assert isinstance(model, Retrieval)  # noqa: S101 - of that architecture
        fresh_scales(model)
        for name, parameter in model.image.named_parameters():
            if name.endswith(_PLACES):
                nn.init.trunc_normal_(parameter, std=_PLACES_STD)
        return model

    def stage_name(self, stage: int) -> str:
        """``float`` and ``packed``, if there are two."""
        return ("float", "packed")[stage] if self.twin is not None else ""

    def enter(self, stage: int) -> None:
        """Go on from the twin."""
        if not stage:
            return
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.options.seed + stage)
            made = self._made(self.config)
        given = self.model.towers.cpu()
        given.zero_grad(set_to_none=True)  # what is clipped is the gradients that a network holds
        for done, known in ((made.text, given.text), (made.text_spread, given.text_spread)):
            done.load_state_dict(known.state_dict())
            done.requires_grad_(False)
        copy_twin(given.image, made.image)
        self.model = _Guided(made, given)

    def described(self) -> dict[str, Any]:
        """The options: data by their resolved path, checkpoints by their hash."""
        return {
            **described(self.options, (GLYPHS,), ("threads",)),
            "start": None if self.start is None else self.start.source_sha256,
            "pictures": len(self.examples),
            "stage_epochs": [*self.stages],
        }

    def memory(self) -> MemoryNeed | None:
        """Not known."""
        return None

    def prepare(self, accelerator: Accelerator) -> None:
        """Put what normalises pictures on the device."""
        self.accelerator = accelerator
        self.mean, self.std = self.mean.to(accelerator.device), self.std.to(accelerator.device)

    def rate_share(self, name: str) -> float:  # noqa: ARG002
        """More where binarized towers follow: the learning rates are of stages."""
        if self.model.guide is None:
            return 1.0
        return self.options.packed_rate / self.options.learning_rate

    def warmup(self, steps: int, total: int) -> float:  # noqa: ARG002
        """As many epochs of each stage."""
        return self.options.warmup_epochs * steps

    def begin_epoch(self, stage: int, epoch: int) -> None:
        """Take the pictures and captions of an epoch, and what the scheme schedules."""
        self.examples.epoch = sum(self.stages[:stage]) + epoch
        begin_epoch(self.model, epoch, self.stages[stage])

    def losses(
        self, network: nn.Module, batch: tuple[Tensor, Tensor], draws: torch.Generator
    ) -> Losses:
        """The loss of a batch of pairs."""
        pixels, words = batch
        images = (pixels.permute(0, 3, 1, 2).float() - self.mean) / self.std
        if self.data.turned:
            images = shift(images, images.shape[-1] // 16, draws, self.share)
            images = mirror(images, draws, self.share)
        # Dropout has no generator of its own, and a resumed run must drop the same.
        torch.manual_seed(int(torch.randint(1 << 62, (), generator=draws)) + self.share.begin)
        given = network(images, words)
        if _APART in given:
            return Losses(given[_APART].sum(), {"apart from the twin": given[_APART].mean()})
        return self.loss(images, words, late_interaction(given[IMAGE], given[TEXT]))

    @abstractmethod
    def loss(self, images: Tensor, words: Tensor, scores: Tensor) -> Losses:
        """Of the scores [B, B] of a batch, a row a picture; pairs are on the diagonal."""

    def measure(self, network: nn.Module) -> dict[str, float]:  # noqa: ARG002
        """Recall both ways on the validation pictures."""
        return recalls(
            all_scores(self.model.towers, self.judged, self.accelerator.device), self.judged.owner
        )

    def score(self, measures: Mapping[str, float]) -> float:
        """Mean of the recalls."""
        return mean_recall(measures)

    def write(self, best: Best, described: Mapping[str, Any], checkpoint: FileOutput) -> None:
        """Write the towers with what they say about themselves before they are judged."""
        self.model.towers.history = provenance(best, described, _RECALL)
        write_checkpoint(self.model.towers, checkpoint)

    def finish(self, ended: Ended) -> RetrievalResult:
        """Judge the best checkpoint by the test pictures; write history and curve.

        Raises:
            VitcError: If the checkpoint is not of this run.
        """
        options = self.options
        model = load(options.out)
        wanted = provenance(ended.best, ended.described, _RECALL)
        earlier_test(model.history, wanted, _TEST, options)
        assert isinstance(model, Retrieval)  # noqa: S101 - of this run
        judged = Judged.of(self.data.test, model.preprocessing, self.words)
        device = self.accelerator.device
        test = recalls(all_scores(model.to(device), judged, device), judged.owner)
        guessed = chance(judged)
        validation = dict(ended.history[ended.best.epoch - 1].measures)
        if ended.outputs is not None:
            model.history = {**wanted, _TEST: test}
            write_checkpoint(model, ended.outputs.checkpoint)
            best: dict[str, Any] = {
                "epoch": ended.best.epoch,
                "validation": validation,
                "test": test,
                "chance": guessed,
                "test_images": len(judged.pixels),
                "test_texts": len(judged.words),
            }
            write_history(ended.outputs.history, ended.described, ended.history, best)
            curves = {
                "text_to_image_r1": "text to image R@1",
                "text_to_image_r10": "R@10",
            }
            write_curve(ended.outputs.curve, ended.history, curves, ended.best.epoch)
        return RetrievalResult(
            checkpoint=options.out,
            best_epoch=ended.best.epoch,
            validation=validation,
            test=test,
            chance=guessed,
            test_images=len(judged.pixels),
            test_texts=len(judged.words),
            history=ended.history,
            seconds=ended.seconds,
            curve=options.curve,
            history_file=options.history,
        )


class Ranking(_Towers):
    """Towers learn that what belongs together scores more than what does not.

    Args:
        options: Of the run.
        note: Told what is left out, and what the loss of untrained and of perfect towers is.

    Raises:
        VitcError: If data, preset or start do not fit each other.
    """

    options: RetrievalOptions

    def __init__(self, options: RetrievalOptions, note: Callable[[str], None]) -> None:
        self.options = options
        data = read_data(options.data, options.seed, note)
        config, shown = _configured(options, data)
        self._begin(config, shown, data, note)
        self.margin = MODES[config.mode].margin
        self.scale = options.contrast / config.text_vectors
        batch = min(options.batch_size, len(self.examples))
        equal = collapsed_value(batch, self.margin)
        if self.scale:
            equal += 2 * batch * math.log(batch)
        note(
            f"{len(self.examples)} pairs an epoch, vocabulary of {len(config.pieces)} word pieces, "
            f"{config.length} a text; {config.image_vectors} x {config.text_vectors} interactions; "
            f"the loss is {equal:.0f} where all scores are equal and "
            f"{perfect_value(batch, self.margin):.0f} where none is wrong"
        )

    def loss(self, images: Tensor, words: Tensor, scores: Tensor) -> Losses:  # noqa: ARG002
        """The ranking loss, the sum over the batch as in the paper, and the contrastive one."""
        ranking = ranking_loss(scores, self.margin)
        if not self.scale:
            return Losses(ranking)
        contrast = contrastive_loss(scores, self.scale)
        return Losses(ranking + contrast, {"ranking": ranking, "contrast": contrast})


class Shrinking(_Towers):
    """Towers with fewer interactions learn the scores of others.

    Words, positions and patches are those of the teacher, and stay (Inflate and Shrink, section
    3.3). The encoders begin with what the teacher's hold of their rows (ours: the paper's begin
    with BERT, as their teacher did, and nothing here is pre-trained); with a `start`, or where a
    twin learns first, they are fresh. The teacher computes as it would be used, so without dropout
    (ours).

    Args:
        options: Of the run.
        note: Told what is left out.

    Raises:
        VitcError: If the teacher is no pair of towers, or already as small as the student.
    """

    options: ShrinkOptions

    def __init__(self, options: ShrinkOptions, note: Callable[[str], None]) -> None:
        self.options = options
        teacher = load(options.teacher)
        if not isinstance(teacher, Retrieval):
            raise VitcError(
                f"{options.teacher} is no retrieval network but a {teacher.config.arch}.",
                "Train one with `vitc retrieve train --mode inflate`.",
            )
        config = RetrievalConfig.of(
            teacher.config.image, **{**_own(teacher.config), "mode": options.to, "codes": 0}
        )
        if config.text_vectors >= teacher.config.text_vectors:
            raise VitcError(
                f"{options.teacher} has mode {teacher.config.mode}, and shrinking it to "
                f"{options.to} leaves as many interactions.",
                "Shrink inflated towers to base, and those to fast.",
            )
        self.teacher = teacher.eval().requires_grad_(False)
        data = read_data(options.data, options.seed, note)
        self._begin(config, teacher.preprocessing, data, note)
        self.scales = _SCALES[options.to]
        note(
            f"{teacher.config.image_vectors} x {teacher.config.text_vectors} interactions become "
            f"{config.image_vectors} x {config.text_vectors}"
        )

    def _made(self, config: RetrievalConfig) -> Retrieval:
        """Towers on the teacher's front end, that begin with its encoders or fresh ones."""
        model = super()._made(config)
        if self.twin is None and self.start is None:
            _begin_with(self.teacher, model)
        _reuse_front_end(self.teacher, model)
        return model

    def described(self) -> dict[str, Any]:
        """As of the run; the teacher by its hash."""
        return {**super().described(), "teacher": self.teacher.source_sha256}

    def prepare(self, accelerator: Accelerator) -> None:
        """Put the teacher on the device, too."""
        super().prepare(accelerator)
        self.teacher = self.teacher.to(accelerator.device)

    def loss(self, images: Tensor, words: Tensor, scores: Tensor) -> Losses:
        """The distillation, and how far it is above the least that it can be."""
        with torch.no_grad():
            wanted = late_interaction(
                self.teacher.vectors(self.teacher.image_rows(images)),
                self.teacher.vectors(self.teacher.text_rows(words)),
            )
        of_teacher, of_student = self.scales
        total = shrink_loss(wanted, scores, teacher_scale=of_teacher, student_scale=of_student)
        return Losses(total, {"above the least": total - distillation_entropy(wanted, of_teacher)})


def _configured(
    options: RetrievalOptions, data: CaptionData
) -> tuple[RetrievalConfig, Preprocessing]:
    chosen = (twin_preset if options.full_precision else preset)(options.preset)
    sizes: dict[str, Any] = {
        "image_size": options.image_size,
        "classes": options.width,
        "depth": options.depth,
    }
    if options.full_precision:
        backbone = chosen.config.replace(**sizes)
    else:
        backbone = replace(chosen.config.replace(**sizes, si=options.si), scheme=options.scheme)
    shown = chosen.preprocessing
    if options.image_size is not None:
        shown = shown.scaled_to(options.image_size)
    texts = list(data.texts)
    pieces = learn_pieces(texts, options.vocabulary)
    lengths = sorted(1 + len(found) for found in WordPieces(pieces, 1).encoded(texts))
    most = lengths[int(_MOST * (len(lengths) - 1))]
    fitting = min(-(-most // _MULTIPLE) * _MULTIPLE, _LONGEST)
    codes = _INFLATED if options.codes is None else options.codes
    config = RetrievalConfig.of(
        backbone,
        mode=options.mode,
        codes=codes if options.mode == "inflate" else 0,
        length=options.length or fitting,
        pieces=pieces,
        text_width=options.text_width,
        text_hidden=2 * options.text_width,
        text_layers=options.text_layers,
        packed=not options.floats,
    )
    return config, shown


def _twin_of(config: RetrievalConfig, start: Network | None) -> RetrievalConfig:
    """The full-precision twin, whose MLPs are as wide as the network's, or as those of a start.

    Its vectors are signs where the network's are.
    """
    twin = RETRIEVAL.twin(config)
    assert isinstance(twin, RetrievalConfig)  # noqa: S101 - as the entry says
    hidden = getattr(config.image if start is None else start.config, "hidden", None)
    image = twin.image if hidden is None else replace(twin.image, hidden=hidden)  # type: ignore[call-arg]
    return RetrievalConfig.of(image, **{**_own(twin), "packed": config.packed})


def _own(config: RetrievalConfig) -> dict[str, Any]:
    """What a configuration says of the towers beside the backbone."""
    names = {field.name for field in fields(config)}
    told = {field.name for field in fields(config.image)} | {"image", "arch"}
    return {name: getattr(config, name) for name in names - told}


@torch.no_grad()
def _begin_with(teacher: Retrieval, student: Retrieval) -> None:
    """Copy what a student has of its teacher: rows that it lacks stand behind those that it has."""
    given = teacher.state_dict()
    for name, slot in student.state_dict().items():
        slot.copy_(given[name][tuple(slice(size) for size in slot.shape)])


@torch.no_grad()
def _reuse_front_end(teacher: Retrieval, student: Retrieval) -> None:
    """Copy what makes rows of words and of pixels, and freeze it."""
    given, slots = teacher.state_dict(), dict(student.named_parameters())
    for name, slot in slots.items():
        if name.startswith(_FRONT_END) and name in given:
            slot.copy_(given[name])
            slot.requires_grad_(False)
