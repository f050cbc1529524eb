"""Classes of images: label loss, with a teacher distillation too; the network is a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Final

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import AdamW
from torch.utils.data import DataLoader

from vitc.errors import VitcError
from vitc.models import Network, NetworkConfig, load, preset
from vitc.models.architectures import twin_preset
from vitc.models.binary_linear import begin_epoch
from vitc.models.checkpoint import write_checkpoint
from vitc.models.picture_files import counted
from vitc.models.twins.loading import load_twin
from vitc.outputs import FileOutput
from vitc.training.augmentation import erase, mirror, resized_crop, shift
from vitc.training.data import DIGITS, Dataset, batches, loader
from vitc.training.dmjd.schedule import layer_scale
from vitc.training.drop_path import DropPath
from vitc.training.fine_tuning import fine_tuning
from vitc.training.losses import Losses, classification_loss, with_features
from vitc.training.memory import MemoryNeed, estimate
from vitc.training.mixing import mix
from vitc.training.objectives.objective import Best, Ended, Objective
from vitc.training.options import TrainOptions, TrainResult
from vitc.training.parts import load_parts
from vitc.training.progress_files import EPOCHS, write_curve, write_history
from vitc.training.start import initial
from vitc.training.teacher import FeatureTeacher, last_tokens, read_teacher

__all__ = ["Classification"]

_EVAL_BATCH: Final = 256
_NARROW: Final = 128
_NOT_OF_THE_RUN: Final = frozenset(("out", "resume", "force"))
_VALIDATION: Final = "validation_accuracy"
_TEST: Final = "test_accuracy"


class Classification(Objective[TrainResult]):
    """Labels of images, with AdamW, warm-up and cosine.

    The best epoch is chosen by the validation images; the test images are looked at once, at the
    end.

    Args:
        options: Of the run.
        note: Told what lies in the folder and is no image of a class.

    Raises:
        VitcError: If data, preset, start or teacher do not fit each other.
    """

    model: Network

    def __init__(self, options: TrainOptions, note: Callable[[str], None]) -> None:
        self.options = options
        chosen = (twin_preset if options.full_precision else preset)(options.preset)
        shown = chosen.preprocessing.on(options.background)
        if options.image_size is not None:
            shown = shown.scaled_to(options.image_size)
        self.parts = load_parts(options.data, shown)
        self.examples = self.parts.train
        if self.parts.left:
            note(f"left out of {options.data}: {counted(self.parts.left)}")
        labels = self.examples.labels
        if len(labels) < 2:
            raise VitcError(
                f"{options.data} has one class, {labels[0]!r}.", "Training needs two or more."
            )
        read = load_twin if options.full_precision else load
        self.start = None if options.start is None else read(options.start)
        self.config = _configured(chosen.config, options, self.examples)
        self.model = initial(self.stage_config(0), self.examples, self.start, note)
        self.teacher = (
            None if options.teacher is None else read_teacher(options.teacher, self.model)
        )
        if isinstance(self.teacher, FeatureTeacher):
            note(f"{options.teacher} knows no classes: its tokens are learnt from")
        self.fine = fine_tuning(options, self.start)
        self.drop = DropPath(self.model, self.fine.drop_path) if self.fine.drop_path else None
        self.stages = (options.epochs,)
        self.threads = 1 if self.config.widest <= _NARROW else None

    def stage_config(self, stage: int) -> NetworkConfig:  # noqa: ARG002
        """Of the network that a stage trains."""
        return self.config

    def described(self) -> dict[str, Any]:
        """The options: data by their resolved path, checkpoints by their hash."""
        options = self.options
        plain = {
            field.name: list(value) if isinstance(value, tuple) else value
            for field, value in ((field, getattr(options, field.name)) for field in fields(options))
            if field.name not in _NOT_OF_THE_RUN
        }
        return {
            **plain,
            "data": options.data if options.data == DIGITS else str(Path(options.data).resolve()),
            "start": None if self.start is None else self.start.source_sha256,
            "teacher": None if self.teacher is None else self.teacher.network.source_sha256,
        }

    def memory(self) -> MemoryNeed:
        """As `vitc.training.memory.estimate`."""
        return estimate(self.model, self.parts, self.options.label_smoothing)

    def prepare(self, accelerator: Accelerator) -> None:
        """Put the teacher on the device, and the images to measure by before every process."""
        self.accelerator = accelerator
        if self.teacher is not None:
            self.teacher = self.teacher.to(accelerator.device).eval()
        self.validation_loader, self.test_loader = accelerator.prepare(
            *(
                loader(data, batch_size=_EVAL_BATCH)
                for data in (self.parts.validation, self.parts.test)
            )
        )

    def optimizer(self) -> AdamW:
        """AdamW; weights decay, everything else does not."""
        groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                key = (parameter.ndim == 2, self.rate_share(name))
                groups.setdefault(key, []).append(parameter)
        return AdamW(
            [
                {
                    "params": groups[decays, share],
                    "weight_decay": self.options.weight_decay if decays else 0.0,
                    "lr": share * self.options.learning_rate,
                }
                for decays, share in sorted(groups, reverse=True)
            ]
        )

    def rate_share(self, name: str) -> float:
        """Which share of the learning rate a parameter has: less in earlier layers, if asked."""
        return layer_scale(name, self.config.blocks, self.fine.layer_decay)

    def rate(self, step: int, steps: int, total: int) -> float:  # noqa: ARG002
        """Warm-up, of a stage its share of the run's, and half a cosine to 0."""
        warmup = self.options.warmup_epochs * total / self.options.epochs
        rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
        return rise * 0.5 * (1 + math.cos(math.pi * min(1.0, step / total)))

    def begin_epoch(self, stage: int, epoch: int) -> None:
        """Set what the scheme schedules by epochs."""
        begin_epoch(self.model, epoch, self.stages[stage])

    def losses(
        self, network: nn.Module, batch: tuple[Tensor, Tensor], draws: torch.Generator
    ) -> Losses:
        """The label loss, with a teacher as `classification_loss` or `with_features` has it."""
        images, targets = batch
        options = self.options
        shown = self.augmented(images, draws)
        if options.mixup or options.cutmix:
            mixing = {"mixup": options.mixup, "cutmix": options.cutmix}
            shown, targets = mix(shown, targets, self.config.classes, draws, **mixing)
        if self.drop is not None:
            self.drop.draws, self.drop.share = draws, self.share
        if isinstance(self.teacher, FeatureTeacher):
            wanted = self.teacher(shown)
            with last_tokens(self.model) as own:
                logits = network(shown)
            label = classification_loss(logits, targets, self.options.label_smoothing)
            return with_features(label, own[0], wanted)
        wisdom = None if self.teacher is None else self.teacher(shown)
        return classification_loss(network(shown), targets, options.label_smoothing, wisdom)

    def augmented(self, images: Tensor, draws: torch.Generator) -> Tensor:
        """Images as they are shown to the network, each by itself."""
        options, share = self.options, self.share
        if options.augment:
            images = shift(images, images.shape[-1] // 16, draws, share)
            if options.data != DIGITS:
                images = mirror(images, draws, share)
        if options.crop_scale is not None:
            images = resized_crop(images, options.crop_scale, draws, share)
        if options.hflip:
            images = mirror(images, draws, share, options.hflip)
        if options.erasing:
            images = erase(images, options.erasing, draws, share)
        return images

    def measure(self, network: nn.Module) -> dict[str, float]:
        """Accuracy on the validation images."""
        return {_VALIDATION: self.accuracy(network, self.validation_loader)}

    @torch.no_grad()
    def accuracy(self, network: nn.Module, images: DataLoader[Any]) -> float:
        """Top-1 in [0, 1], over all processes."""
        network.eval()
        right, count = 0, 0
        for shown, targets in batches(images):
            guesses = network(shown).argmax(dim=-1)
            guesses, wanted = self.accelerator.gather_for_metrics((guesses, targets))
            right += int((guesses == wanted).sum())
            count += len(wanted)
        return right / count

    def score(self, measures: Mapping[str, float]) -> float:
        """Its accuracy on the validation images."""
        return measures[_VALIDATION]

    def write(self, best: Best, described: Mapping[str, Any], checkpoint: FileOutput) -> None:
        """Write the network with what it says about itself before it is judged."""
        self.model.history = _provenance(best, described)
        write_checkpoint(self.model, checkpoint)

    def finish(self, ended: Ended) -> TrainResult:
        """Judge the best checkpoint by the test images, and write that into it and the history.

        A resumed run that was finished takes the figure from the checkpoint.

        Raises:
            VitcError: If the checkpoint is not of this run.
        """
        accuracy = self._judge(ended)
        best = {"epoch": ended.best.epoch, _VALIDATION: ended.best.score, _TEST: accuracy}
        if ended.outputs is not None:
            write_history(ended.outputs.history, ended.described, ended.history, best)
            write_curve(ended.outputs.curve, ended.history, {_VALIDATION: "validation accuracy"})
        return TrainResult(
            checkpoint=self.options.out,
            best_epoch=ended.best.epoch,
            validation_accuracy=ended.best.score,
            test_accuracy=accuracy,
            history=ended.history,
            seconds=ended.seconds,
            curve=self.options.curve,
            history_file=self.options.history,
        )

    def _judge(self, ended: Ended) -> float:
        model = load(self.options.out)
        stated = dict(model.history)
        known = stated.pop(_TEST, None)
        provenance = _provenance(ended.best, ended.described)
        if _apart_from_epochs(stated) != _apart_from_epochs(provenance):
            raise VitcError(
                f"{self.options.out} is not the best checkpoint of the run of {self.options.last}.",
                "Train without resuming.",
            )
        if known is not None:
            return float(known)
        accuracy = self.accuracy(model.to(self.accelerator.device), self.test_loader)
        if ended.outputs is not None:
            model.history = {**provenance, _TEST: accuracy}
            write_checkpoint(model, ended.outputs.checkpoint)
        return accuracy

    def diverged(self, epoch: int) -> VitcError:
        """Say which learning rate is to be lowered."""
        return VitcError(
            f"The loss stopped being finite in epoch {epoch}.",
            f"Lower the learning rate, which is {self.options.learning_rate}.",
        )


def _configured(config: NetworkConfig, options: TrainOptions, data: Dataset) -> NetworkConfig:
    if options.full_precision:
        return config.replace(
            image_size=options.image_size,
            classes=len(data.labels),
            depth=options.depth,
            mlp_ratio=options.mlp_ratio,
        )
    sized = config.replace(
        image_size=options.image_size,
        classes=len(data.labels),
        depth=options.depth,
        si=options.si,
        mlp_ratio=options.mlp_ratio,
        weight_bits=options.weight_bits,
        norm=options.norm,
        merge=options.merge,
    )
    return replace(sized, scheme=options.scheme, elastic=options.elastic)


def _provenance(best: Best, described: Mapping[str, Any]) -> dict[str, Any]:
    return {"options": dict(described), "epoch": best.epoch, _VALIDATION: best.score}


def _apart_from_epochs(provenance: Mapping[str, Any]) -> dict[str, Any]:
    options = provenance.get("options")
    if not isinstance(options, Mapping):
        return dict(provenance)
    return {**provenance, "options": {k: v for k, v in options.items() if k != EPOCHS}}
