"""What the training loop asks of whatever is learnt."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from accelerate import Accelerator
from torch import nn
from torch.optim import Optimizer

from vitc.errors import VitcError
from vitc.outputs import FileOutput
from vitc.training.data import Examples
from vitc.training.epoch_order import Share
from vitc.training.losses import Losses
from vitc.training.memory import MemoryNeed
from vitc.training.options import EpochReport
from vitc.training.run_outputs import RunOutputs

__all__ = ["Best", "Ended", "Objective", "Result"]

Result = TypeVar("Result")


@dataclass(frozen=True)
class Best:
    """The epoch whose weights are kept.

    Attributes:
        epoch: Counted from 1; 0 before the first.
        score: What it was chosen by.
    """

    epoch: int = 0
    score: float = -1.0


@dataclass(frozen=True)
class Ended:
    """A run whose epochs are done.

    Attributes:
        best: Its kept epoch.
        history: One report an epoch.
        described: What the run is, as `Objective.described` says.
        outputs: Its files; None in processes beside the main one, which write nothing.
    """

    best: Best
    history: tuple[EpochReport, ...]
    described: Mapping[str, Any]
    outputs: RunOutputs | None

    @property
    def seconds(self) -> float:
        """Wall time of all epochs, those before a resume included."""
        return sum(report.seconds for report in self.history)


class Objective(ABC, Generic[Result]):
    """What is learnt, and how: everything of a run that is not the loop itself.

    The constructor of a subclass takes its options, reads what they name, refuses what does not
    fit, and sets the attributes below; PyTorch has the seed of the run by then. The loop then
    calls `prepare`, `enter`, and for every epoch `begin_epoch`, `losses` for each batch,
    `measure`, `score` and, if it is the best so far, `write`; at last `finish`.

    A run has one stage or several. Each has a model, an optimizer and a schedule of its own, and
    takes the model over from the one before. The best epoch is one of the last stage.

    Attributes:
        model: What is trained; its state dict is what a run resumes from. Whatever is computed
            for the losses only (projectors, decoders, heads) is a part of it.
        examples: What is learnt from.
        stages: Epochs of each stage.
        threads: CPU threads, if not PyTorch's number.
        share: Which part of its step's batch `losses` is given; the loop sets it.
    """

    model: nn.Module
    examples: Examples
    stages: tuple[int, ...]
    threads: int | None = None
    share: Share

    @abstractmethod
    def described(self) -> dict[str, Any]:
        """What the run is, as JSON values: a state to resume from must be of the same.

        `epochs` is in it, and may be more when a run is resumed.
        """

    @abstractmethod
    def memory(self) -> MemoryNeed | None:
        """What a step takes; None if that is not known."""

    def prepare(self, accelerator: Accelerator) -> None:
        """Put on the device what is beside the model: teachers, loaders to measure by."""

    def enter(self, stage: int) -> None:
        """Make `model` that of a stage, counted from 0.

        Before it `model` is what the constructor made (stage 0), or what the stage before left
        behind. The result, random parameters included, must follow from that and the options
        alone, as a resumed run comes here too; its values are then replaced by those of its state.
        """

    def stage_name(self, stage: int) -> str:  # noqa: ARG002
        """What people are told that a stage is; empty if there is but one."""
        return ""

    @abstractmethod
    def optimizer(self) -> Optimizer:
        """An optimizer of the parameters of `model` that the stage moves.

        Its groups may have learning rates of their own (layer decay, a slower branch).
        """

    @abstractmethod
    def rate(self, step: int, steps: int, total: int) -> float:
        """By what the learning rates of all groups are multiplied.

        Args:
            step: Of the stage, counted from 0.
            steps: Of an epoch.
            total: Of the stage.
        """

    def begin_epoch(self, stage: int, epoch: int) -> None:
        """Set what goes by epochs.

        Args:
            stage: Counted from 0.
            epoch: Of the stage, counted from 0.
        """

    @abstractmethod
    def losses(self, network: nn.Module, batch: Any, draws: torch.Generator) -> Losses:
        """Losses of a batch of `examples`, in training mode.

        Args:
            network: `model`, as it is to be called (it may be wrapped for several processes).
            batch: On the device.
            draws: All that is random comes from here: augmentation, masks. Every process has the
                same, and draws for `share.total` examples to take `share.rows` of them.
        """

    @abstractmethod
    def measure(self, network: nn.Module) -> dict[str, float]:
        """What an epoch is judged by, by name; empty if only the loss is.

        Args:
            network: As in `losses`.
        """

    def score(self, measures: Mapping[str, float]) -> float:  # noqa: ARG002
        """The larger, the better; the latest of equal epochs is kept, so by default the last."""
        return 0.0

    @abstractmethod
    def write(self, best: Best, described: Mapping[str, Any], checkpoint: FileOutput) -> None:
        """Write the checkpoint of the best epoch so far; only the main process does."""

    def after_epoch(self, report: EpochReport) -> None:
        """Whatever else an epoch leaves behind, pictures say; only the main process does."""

    @abstractmethod
    def finish(self, ended: Ended) -> Result:
        """Judge what was kept, write history and curve if there are outputs, and say what came out.

        Every process comes here. A run that was finished before may be resumed, and gives the same.

        Raises:
            VitcError: If the checkpoint is not of this run.
        """

    def diverged(self, epoch: int) -> VitcError:
        """What is said when the loss of an epoch is not finite."""
        return VitcError(
            f"The loss stopped being finite in epoch {epoch}.", "Lower the learning rate."
        )
