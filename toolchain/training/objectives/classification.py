"""Classes of images: label loss, with a teacher distillation too; the network is a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
from accelerate import Accelerator
from torch import Tensor, nn
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
from vitc.training.configured import configured
from vitc.training.data import DIGITS, batches, loader
from vitc.training.dmjd.schedule import layer_scale
from vitc.training.drop_path import DropPath
from vitc.training.fine_tuning import fine_tuning
from vitc.training.losses import Losses, classification_loss, with_features
from vitc.training.memory import MemoryNeed, estimate
from vitc.training.mixing import mix
from vitc.training.objectives.objective import Best, Ended
from vitc.training.objectives.scheduled import Scheduled
from vitc.training.options import TrainOptions, TrainResult
from vitc.training.parts import load_parts
from vitc.training.progress_files import write_curve, write_history
from vitc.training.provenance import described, earlier_test, provenance
from vitc.training.start import initial
from vitc.training.teacher import FeatureTeacher, last_tokens, read_teacher

__all__ = ["Classification"]

_EVAL_BATCH: Final = 256
_NARROW: Final = 128
_VALIDATION: Final = "validation_accuracy"
_TEST: Final = "test_accuracy"


class Classification(Scheduled[TrainResult]):
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
        self.config = configured(
            chosen.config, options, classes=len(labels), image_size=options.image_size
        )
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
        return {
            **described(self.options, (DIGITS,)),
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

    def rate_share(self, name: str) -> float:
        """Which share of the learning rate a parameter has: less in earlier layers, if asked."""
        return layer_scale(name, self.config.blocks, self.fine.layer_decay)

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
        self.model.history = provenance(best, described, _VALIDATION)
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
            drawn = {_VALIDATION: "validation accuracy"}
            write_curve(ended.outputs.curve, ended.history, drawn, ended.best.epoch)
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
        wanted = provenance(ended.best, ended.described, _VALIDATION)
        known = earlier_test(model.history, wanted, _TEST, self.options)
        if known is not None:
            return float(known)
        accuracy = self.accuracy(model.to(self.accelerator.device), self.test_loader)
        if ended.outputs is not None:
            model.history = {**wanted, _TEST: accuracy}
            write_checkpoint(model, ended.outputs.checkpoint)
        return accuracy
