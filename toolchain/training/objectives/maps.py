"""What detection and segmentation have in common: data, network, optimizer, files."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import nn

from vitc.errors import VitcError
from vitc.models.architectures import preset, twin_preset
from vitc.models.architectures.tasks import TaskConfig
from vitc.models.binary_linear import begin_epoch
from vitc.models.checkpoint import load, write_checkpoint
from vitc.models.config import NetworkConfig
from vitc.models.picture_files import counted
from vitc.models.tasks.network import TaskNetwork
from vitc.models.twins.loading import load_twin
from vitc.outputs import FileOutput, write_file
from vitc.training.configured import configured
from vitc.training.losses import Losses
from vitc.training.memory import MemoryNeed
from vitc.training.objectives.objective import Best, Ended
from vitc.training.objectives.scheduled import Scheduled
from vitc.training.options import EpochReport
from vitc.training.progress_files import write_curve, write_history
from vitc.training.provenance import described, earlier_test, provenance
from vitc.training.tasks.augmentation import Batch, cropped, mirrored
from vitc.training.tasks.data import load_task_parts
from vitc.training.tasks.distillation import TaskTeacher
from vitc.training.tasks.examples import TaskExamples
from vitc.training.tasks.mask_folders import VOID
from vitc.training.tasks.options import SCENE_SIZE, TaskOptions, TaskResult
from vitc.training.tasks.scenes import SCENES
from vitc.training.tasks.start import task_network

__all__ = ["MapObjective"]

_NARROW: Final = 128
_VALIDATION: Final = "validation"
_TEST: Final = "test"
_JUDGED: Final = 50


class MapObjective(Scheduled[TaskResult]):
    """A network that gives maps of an image, with AdamW, warm-up and cosine.

    Args:
        options: Of the run.
        note: Told what was left out of the data.

    Raises:
        VitcError: If data, preset and start do not fit each other.
    """

    model: TaskNetwork
    options: TaskOptions
    betas = (0.9, 0.98)
    decayed = (2, 4)
    measures: tuple[str, ...]
    """What it is judged by, the first chooses the epoch."""

    def __init__(self, options: TaskOptions, note: Callable[[str], None]) -> None:
        self.options = options
        chosen = (twin_preset if options.full_precision else preset)(options.preset)
        size = options.image_size or SCENE_SIZE
        # All of a picture is to be seen, so nothing is cropped but what the shape forces.
        shown = replace(chosen.preprocessing, resize=size, crop=size).on(options.background)
        void = VOID if options.void is None else options.void
        self.parts = load_task_parts(
            options.task, options.data, shown, seed=options.seed, void=void
        )
        self.examples: TaskExamples = self.parts.train
        if self.parts.left:
            note(f"left out of {options.data}: {counted(self.parts.left)}")
        trunk = configured(
            chosen.config, options, classes=len(self.examples.labels), image_size=size
        )
        self.config = self.configured(trunk)
        self.start = None if options.start is None else _read(options.start)
        self.model = task_network(self.config, self.examples, self.start, note)
        self.teacher = None if options.teacher is None else TaskTeacher(options.teacher, self.model)
        self.stages = (options.epochs,)
        self.threads = 1 if self.config.widest <= _NARROW else None

    @abstractmethod
    def configured(self, trunk: NetworkConfig) -> TaskConfig:
        """The network on a trunk."""

    @abstractmethod
    def loss(self, maps: Any, batch: Batch, told: Any) -> Losses:
        """Losses of what the network gives in training.

        Args:
            maps: What it gives.
            batch: For these images.
            told: What the teacher gives for them; None without one.
        """

    @abstractmethod
    def judged(self, network: nn.Module, examples: TaskExamples) -> dict[str, float]:
        """Its `measures` on some examples, in eval mode."""

    @abstractmethod
    def picture(self, network: nn.Module) -> bytes:
        """Predictions on a few pictures for validation, as PNG."""

    def described(self) -> dict[str, Any]:
        """The options: data by their resolved path, a checkpoint by its hash."""
        return {
            **described(self.options, SCENES, ("pictures_every",)),
            "start": None if self.start is None else self.start.source_sha256,
            "teacher": None if self.teacher is None else self.teacher.network.source_sha256,
        }

    def memory(self) -> MemoryNeed | None:
        """See `Objective.memory`: not known."""
        return None

    def prepare(self, accelerator: Accelerator) -> None:
        """See `Objective.prepare`."""
        self.accelerator = accelerator
        if self.teacher is not None:
            self.teacher.network.to(accelerator.device)

    def begin_epoch(self, stage: int, epoch: int) -> None:
        """Set what goes by epochs: the scheme's schedule, and which scenes are shown."""
        self.examples.epoch = epoch
        begin_epoch(self.model, epoch, self.stages[stage])

    def losses(self, network: nn.Module, batch: Any, draws: torch.Generator) -> Losses:
        """See `Objective.losses`."""
        shown = Batch(*batch)
        if self.options.augment and self.options.data not in SCENES:
            shown = cropped(mirrored(shown, draws, self.share), draws, self.share)
        told = None if self.teacher is None else self.teacher(shown.images)
        return self.loss(network(shown.images), shown, told)

    def measure(self, network: nn.Module) -> dict[str, float]:
        """Figures on the pictures for validation."""
        network.eval()
        found = self.judged(network, self.parts.validation)
        return {f"validation_{name}": value for name, value in found.items()}

    def score(self, measures: Mapping[str, float]) -> float:
        """The first of its `measures`."""
        return measures[f"validation_{self.measures[0]}"]

    @torch.no_grad()
    def given(
        self, network: nn.Module, examples: TaskExamples, most: int | None = None
    ) -> Iterator[tuple[range, dict[str, NDArray[np.float32]]]]:
        """What the network gives for the first `most` examples, a batch after the other.

        Yields:
            Numbers of the examples, and arrays by name, the examples in front.
        """
        count = len(examples) if most is None else min(most, len(examples))
        for start in range(0, count, _JUDGED):
            numbers = range(start, min(start + _JUDGED, count))
            images = examples.__getitems__(numbers)[0].to(self.accelerator.device)
            made = network(images)
            told = made if isinstance(made, dict) else {"logits": made}
            yield numbers, {name: value.float().cpu().numpy() for name, value in told.items()}

    def write(self, best: Best, described: Mapping[str, Any], checkpoint: FileOutput) -> None:
        """Write the network with what it says about itself before it is judged."""
        self.model.history = provenance(best, described, _VALIDATION)
        write_checkpoint(self.model, checkpoint)

    def after_epoch(self, report: EpochReport) -> None:
        """Draw predictions, every few epochs and at the end."""
        if report.epoch % self.options.pictures_every and report.epoch != report.epochs:
            return
        self.model.eval()
        write_file(self.options.shown, self.picture(self.model), force=True)

    def finish(self, ended: Ended) -> TaskResult:
        """Judge the best checkpoint by the test pictures, and write that into it and the history.

        Raises:
            VitcError: If the checkpoint is not of this run.
        """
        test = self._judge(ended)
        validation = {
            name: ended.history[ended.best.epoch - 1].measures[f"validation_{name}"]
            for name in self.measures
        }
        options = self.options
        if ended.outputs is not None:
            best = {
                "epoch": float(ended.best.epoch),
                **{f"validation_{name}": value for name, value in validation.items()},
                **{f"test_{name}": value for name, value in test.items()},
            }
            write_history(ended.outputs.history, ended.described, ended.history, best)
            drawn = {f"validation_{name}": name for name in self.measures}
            write_curve(ended.outputs.curve, ended.history, drawn, ended.best.epoch)
        return TaskResult(
            checkpoint=options.out,
            best_epoch=ended.best.epoch,
            validation=validation,
            test=test,
            seconds=ended.seconds,
            history=ended.history,
            files=(options.curve, options.history, options.shown),
        )

    def _judge(self, ended: Ended) -> dict[str, float]:
        model = load(self.options.out)
        wanted = provenance(ended.best, ended.described, _VALIDATION)
        known = earlier_test(model.history, wanted, _TEST, self.options)
        if isinstance(known, dict):
            return {str(name): float(value) for name, value in known.items()}
        found = self.judged(model.to(self.accelerator.device).eval(), self.parts.test)
        if ended.outputs is not None:
            model.history = {**wanted, _TEST: found}
            write_checkpoint(model, ended.outputs.checkpoint)
        return found


def _read(path: Path) -> Any:
    try:
        return load(path)
    except VitcError:
        return load_twin(path)
