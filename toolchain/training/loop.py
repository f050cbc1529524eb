"""The training loop: one for all that is learnt, one evaluation an epoch, resumable.

What is learnt is an `Objective`. What an epoch is comes from seed and number alone
(`vitc.training.epoch_order`), so the state to resume from is that after the last finished epoch.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from itertools import accumulate
from typing import Final, Generic, TypeAlias

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, send_to_device
from torch import Tensor

from vitc.errors import VitcError
from vitc.models.processes import counted, summed
from vitc.training.data import batches, loader
from vitc.training.epoch_order import EpochBatches, generator
from vitc.training.memory import available, check_memory
from vitc.training.objectives.objective import Best, Ended, Objective, Result
from vitc.training.options import EpochReport, RunOptions, StepReport
from vitc.training.progress_files import read_state, write_state
from vitc.training.run_outputs import RunOutputs, claim_outputs

__all__ = ["Build", "Note", "Progress", "Step", "learn", "silent"]

Progress: TypeAlias = Callable[[EpochReport], None]
Step: TypeAlias = Callable[[StepReport], None]
Note: TypeAlias = Callable[[str], None]
Build: TypeAlias = Callable[[Note], Objective[Result]]

_TOTAL: Final = ""
"""Where the sum stands among the parts of a loss."""


def silent(_: object) -> None:
    """Tell nobody."""


def learn(
    options: RunOptions,
    build: Build[Result],
    progress: Progress | None = None,
    *,
    note: Note = silent,
    step: Step = silent,
) -> Result:
    """Train what an objective says, and write the checkpoint of its best epoch.

    Args:
        options: Of the run.
        build: Makes the objective; it is given `note`.
        progress: Called after each epoch.
        note: Told in a sentence what a person should know before it begins.
        step: Called after each step.

    Raises:
        VitcError: If what the objective reads or the state to resume from do not fit, if there is
            too little memory, or if the loss stops being finite.
    """
    accelerator = Accelerator(
        # Told so, Accelerate lets several processes of a machine without accelerators find others.
        cpu="LOCAL_RANK" in os.environ and not torch.accelerator.is_available(),
        kwargs_handlers=[
            # Buffers follow the batch of all processes; what a network does not use, it never does.
            DistributedDataParallelKwargs(broadcast_buffers=False, static_graph=True)
        ],
    )
    if not accelerator.is_main_process:
        return _learn(options, build, accelerator, silent, silent, silent, None)
    with claim_outputs(options) as outputs:
        return _learn(options, build, accelerator, progress or silent, note, step, outputs)


def _learn(
    options: RunOptions,
    build: Build[Result],
    accelerator: Accelerator,
    progress: Progress,
    note: Note,
    step: Step,
    outputs: RunOutputs | None,
) -> Result:
    torch.manual_seed(options.seed)
    objective = build(note)
    need = objective.memory()
    if need is not None:
        own = math.ceil(options.batch_size / accelerator.num_processes)
        note(check_memory(need, own, available(accelerator.device)))
    run = _Run(options, objective, accelerator, outputs)
    if options.resume:
        run.restore()
    with _threads(options.threads or objective.threads):
        while run.epoch < run.epochs:
            progress(run.step(step))
        return run.finish()


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(before if count is None else count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Run(Generic[Result]):
    """The moving parts of one run."""

    def __init__(
        self,
        options: RunOptions,
        objective: Objective[Result],
        accelerator: Accelerator,
        outputs: RunOutputs | None,  # of the main process
    ) -> None:
        self.options = options
        self.objective = objective
        self.accelerator = accelerator
        self.outputs = outputs
        self.described = objective.described()
        self.ends = [*accumulate(objective.stages)]
        self.epochs = self.ends[-1]
        self.epoch = 0
        self.best = Best()
        self.history: list[EpochReport] = []
        self.sampler = EpochBatches(
            len(objective.examples),
            options.batch_size,
            options.seed,
            accelerator.process_index,
            accelerator.num_processes,
        )
        self.loader = loader(objective.examples, self.sampler)
        objective.prepare(accelerator)
        self.stage = -1
        self._enter(0)

    def _enter(self, stage: int) -> None:
        """Begin a stage, with an optimizer and a schedule of its own."""
        self.stage = stage
        self.best = Best()
        self.objective.enter(stage)
        self.network, self.optimizer = self.accelerator.prepare(
            self.objective.model, self.objective.optimizer()
        )
        steps = len(self.loader)
        total = max(self.objective.stages[stage] * steps, 1)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer.optimizer, lambda step: self.objective.rate(step, steps, total)
        )

    @property
    def _begun(self) -> int:
        """Epochs of the stages before this one."""
        return self.ends[self.stage] - self.objective.stages[self.stage]

    def step(self, report_step: Step = silent) -> EpochReport:
        """One epoch, its evaluation, and the files."""
        began = time.perf_counter()
        if self.epoch == self.ends[self.stage]:
            self._enter(self.stage + 1)
        loss, parts, speed = self._train_epoch(report_step)
        measures = self.objective.measure(self.network)
        self.epoch += 1
        report = EpochReport(
            epoch=self.epoch,
            epochs=self.epochs,
            loss=loss,
            learning_rate=float(self.schedule.get_last_lr()[0]),
            seconds=time.perf_counter() - began,
            images_per_second=speed,
            parts=parts,
            measures=measures,
            stage=self.objective.stage_name(self.stage),
        )
        self.history.append(report)
        score = self.objective.score(measures)
        is_best = score >= self.best.score
        if is_best:
            self.best = Best(self.epoch, score)
        if self.outputs is not None:
            self._write(self.outputs, is_best)
            self.objective.after_epoch(report)
        self.accelerator.wait_for_everyone()
        return report

    def _train_epoch(self, report_step: Step) -> tuple[float, dict[str, float], float]:
        """Mean loss, its parts, and images a second."""
        began = time.perf_counter()
        self.network.train()
        self.sampler.epoch = self.epoch
        self.objective.begin_epoch(self.stage, self.epoch - self._begun)
        draws = generator(self.options.seed, self.epoch, 1)
        totals: dict[str, Tensor] = {}
        count, seen, speed = 0, 0, 0.0
        for done, read in enumerate(batches(self.loader), 1):
            batch = send_to_device(read, self.accelerator.device)
            share = self.objective.share = self.sampler.share(done - 1)
            own = len(batch[0])
            with self._precision():
                losses = self.objective.losses(self.network, batch, draws)
            self.optimizer.zero_grad()
            self.accelerator.backward(self._of_all(losses.total, own))
            self.accelerator.clip_grad_norm_(self.network.parameters(), self.options.clip_norm)
            self.optimizer.step()
            self.schedule.step()
            for name, loss in {_TOTAL: losses.total, **losses.parts}.items():
                told = loss.detach() if own else torch.zeros_like(loss)
                totals[name] = totals.get(name, 0) + told * own
            count += own
            seen += share.total
            speed = seen / (time.perf_counter() - began)
            report_step(StepReport(self.epoch + 1, done, len(self.loader), speed))
        whole = counted(count, totals[_TOTAL])
        means = {name: float(summed(total) / whole) for name, total in totals.items()}
        mean = means.pop(_TOTAL)
        if not math.isfinite(mean):
            raise self.objective.diverged(self.epoch + 1)
        return mean, means, speed

    def _precision(self) -> torch.autocast:
        return torch.autocast(
            self.accelerator.device.type,
            dtype=torch.bfloat16,
            enabled=self.options.mixed_precision == "bf16",
        )

    def _of_all(self, loss: Tensor, own: int) -> Tensor:
        """What a process adds to the loss of the whole batch, whose gradients are averaged.

        Args:
            loss: Mean over its examples.
            own: How many these are.
        """
        if self.accelerator.num_processes == 1:
            return loss
        share = own * self.accelerator.num_processes / counted(own, loss)
        return loss * share if own else loss.nan_to_num()

    def _write(self, outputs: RunOutputs, is_best: bool) -> None:
        if is_best:
            self.objective.write(self.best, self.described, outputs.checkpoint)
        state = {
            "run": self.described,
            "stage": self.stage,
            "epoch": self.epoch,
            "model": self.objective.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "best": asdict(self.best),
            "history": [asdict(report) for report in self.history],
        }
        write_state(outputs.last, state)

    def restore(self) -> None:
        """Take up the state after the last finished epoch.

        Raises:
            VitcError: If there is none, or it comes from another run.
        """
        state = read_state(self.options.last, self.described)
        if not self.options.out.is_file():
            raise VitcError(
                f"{self.options.last} is there but the best checkpoint {self.options.out} is not.",
                "Train without resuming.",
            )
        while self.stage < state["stage"]:
            self._enter(self.stage + 1)
        self.objective.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        # With more epochs than before the rate is another one from the next step on.
        for group, base, rate in zip(
            self.optimizer.param_groups,
            self.schedule.base_lrs,
            self.schedule.lr_lambdas,
            strict=True,
        ):
            group["lr"] = base * rate(self.schedule.last_epoch)
        self.epoch = state["epoch"]
        self.best = Best(**state["best"])
        self.history = [EpochReport(**report) for report in state["history"]]

    def finish(self) -> Result:
        """What the objective makes of it."""
        ended = Ended(self.best, tuple(self.history), self.described, self.outputs)
        return self.objective.finish(ended)
