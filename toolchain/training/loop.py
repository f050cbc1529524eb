"""The training loop: AdamW, warm-up and cosine, one validation an epoch, resumable.

The best epoch is chosen by the validation images; the test images are looked at once, at the end.

Batch order and augmentation of an epoch come from the seed and the epoch's number alone, so a
resumed run needs no generator state and repeats an uninterrupted one bit for bit.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, TypeAlias

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler

from vitc.errors import VitcError
from vitc.models import Network, NetworkConfig, build_network, load, preset
from vitc.models.architectures import twin_preset
from vitc.models.binary_linear import begin_epoch, narrow
from vitc.models.checkpoint import write_checkpoint
from vitc.models.network import SPATIAL_SCALE
from vitc.models.picture_files import counted
from vitc.models.twins.loading import load_twin
from vitc.training.augmentation import mirror, shift
from vitc.training.data import DIGITS, Dataset, Reporting, batches
from vitc.training.losses import classification_loss
from vitc.training.memory import available, check_memory, estimate
from vitc.training.options import EpochReport, StepReport, TrainOptions, TrainResult
from vitc.training.parts import Parts, load_parts
from vitc.training.progress_files import EPOCHS, read_state, write_curve, write_history, write_state
from vitc.training.run_outputs import RunOutputs, claim_outputs
from vitc.training.teacher import Teacher

__all__ = ["Progress", "train"]

Progress: TypeAlias = Callable[[EpochReport], None]

_EVAL_BATCH = 256
_WORKERS = 4
_SI_SCALE = 0.1
_NARROW = 128
_NOT_OF_THE_RUN = frozenset(("out", "resume", "force"))


def train(
    options: TrainOptions,
    progress: Progress | None = None,
    *,
    note: Callable[[str], None] = lambda _: None,
    step: Callable[[StepReport], None] = lambda _: None,
) -> TrainResult:
    """Train a network and write the checkpoint of its best epoch.

    Args:
        options: What to do.
        progress: Called after each epoch.
        note: Told in a sentence what a person should know before it begins.
        step: Called after each step.

    Raises:
        VitcError: If the data, the preset, the teacher or the state to resume from do not fit, if
            there is too little memory, or if the loss stops being finite.
    """
    accelerator = Accelerator()
    if not accelerator.is_main_process:
        return _train(options, accelerator, progress, note, step, None)
    with claim_outputs(options) as outputs:
        return _train(options, accelerator, progress, note, step, outputs)


def _train(
    options: TrainOptions,
    accelerator: Accelerator,
    progress: Progress | None,
    note: Callable[[str], None],
    step: Callable[[StepReport], None],
    outputs: RunOutputs | None,
) -> TrainResult:
    torch.manual_seed(options.seed)
    chosen = (twin_preset if options.full_precision else preset)(options.preset)
    shown = chosen.preprocessing.on(options.background)
    parts = load_parts(options.data, shown)
    if parts.left and outputs is not None:
        note(f"left out of {options.data}: {counted(parts.left)}")
    labels = parts.train.labels
    if len(labels) < 2:
        raise VitcError(
            f"{options.data} has one class, {labels[0]!r}.", "Training needs two or more."
        )
    read = load_twin if options.full_precision else load
    start = None if options.start is None else read(options.start)
    model = _initial(_configured(chosen.config, options, parts.train), parts.train, start)
    teacher = None if options.teacher is None else Teacher(options.teacher, model)
    described = _described(
        options,
        start=None if start is None else start.source_sha256,
        teacher=None if teacher is None else teacher.network.source_sha256,
    )
    need = estimate(model, parts, options.label_smoothing)
    said = check_memory(need, options.batch_size, available(accelerator.device))
    if outputs is not None:
        note(said)
    run = _Run(options, outputs, described, accelerator, model, teacher, parts)
    if options.resume:
        run.restore()
    with _threads(options.threads or (1 if model.config.widest <= _NARROW else None)):
        while run.epoch < options.epochs:
            report = run.step(step if outputs is not None else _silent)
            if outputs is not None and progress is not None:
                progress(report)
        return run.finish()


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(before if count is None else count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _configured(config: NetworkConfig, options: TrainOptions, data: Dataset) -> NetworkConfig:
    if options.full_precision:
        return config.replace(classes=len(data.labels), depth=options.depth)
    sized = config.replace(
        classes=len(data.labels),
        depth=options.depth,
        si=options.si,
        weight_bits=options.weight_bits,
    )
    return replace(sized, scheme=options.scheme, elastic=options.elastic)


def _initial(config: NetworkConfig, data: Dataset, start: Network | None) -> Network:
    model = build_network(config, data.preprocessing, data.labels)
    for name, parameter in model.named_parameters():
        if name.endswith(SPATIAL_SCALE):
            nn.init.constant_(parameter, _SI_SCALE)
    if start is not None:
        _copy_matching(start, model)
    return model


@torch.no_grad()
def _copy_matching(source: Network, model: Network) -> None:
    """Copy all of `source`; SI branches that it lacks get scale 0."""
    wanted = model.state_dict()
    given = source.state_dict()
    new_classes = source.config.classes != model.config.classes
    misfits = [
        f"{name} is {tuple(tensor.shape)}, wanted {tuple(wanted[name].shape)}"
        if name in wanted
        else f"{name} has no place"
        for name, tensor in given.items()
        if (name not in wanted or wanted[name].shape != tensor.shape)
        and not (new_classes and name.startswith("head."))
    ]
    if misfits:
        raise VitcError(
            f"{source.source_path} does not fit the network to train: {'; '.join(misfits[:6])}.",
            "Start from a checkpoint of the same preset, depth and MLP ratio.",
        )
    if source.config.scheme != model.config.scheme:
        raise VitcError(
            f"{source.source_path} is of scheme {source.config.scheme}, and the network to train "
            f"of {model.config.scheme}.",
            f"Train with --scheme {source.config.scheme}, or start from another checkpoint.",
        )
    for name, slot in wanted.items():
        if name in given and given[name].shape == slot.shape:
            slot.copy_(given[name])
        elif name.endswith(SPATIAL_SCALE):
            slot.zero_()
    if source.config.weight_bits > model.config.weight_bits:
        narrow(model)


class _EpochBatches(Sampler[list[int]]):
    """Batches of indices in an order that depends on seed and epoch only."""

    def __init__(self, count: int, batch_size: int, seed: int) -> None:
        self.count = count
        self.batch_size = batch_size
        self.drop_last = False
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return math.ceil(self.count / self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        order = torch.randperm(self.count, generator=_generator(self.seed, self.epoch, 0))
        for start in range(0, self.count, self.batch_size):
            yield order[start : start + self.batch_size].tolist()


def _generator(seed: int, epoch: int, stream: int) -> torch.Generator:
    return torch.Generator().manual_seed(((seed * 100_003 + epoch) * 64 + stream) % (1 << 63))


def _silent(_: StepReport) -> None:
    pass


def _as_is(batch: Any) -> Any:
    return batch


class _Run:
    """The moving parts of one run."""

    def __init__(
        self,
        options: TrainOptions,
        outputs: RunOutputs | None,  # of the main process
        described: dict[str, Any],
        accelerator: Accelerator,
        model: Network,
        teacher: Teacher | None,
        parts: Parts,
    ) -> None:
        self.options = options
        self.outputs = outputs
        self.described = described
        self.accelerator = accelerator
        self.model = model
        self.teacher = None if teacher is None else teacher.to(accelerator.device).eval()
        self.epoch = 0
        self.best_accuracy = -1.0
        self.best_epoch = 0
        self.history: list[EpochReport] = []
        self.sampler = _EpochBatches(len(parts.train), options.batch_size, options.seed)
        matrices = [p for p in model.parameters() if p.ndim == 2]
        others = [p for p in model.parameters() if p.ndim != 2]
        optimizer = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": options.weight_decay},
                {"params": others, "weight_decay": 0.0},
            ],
            lr=options.learning_rate,
        )
        workers = 0 if parts.train.in_memory else min(_WORKERS, len(os.sched_getaffinity(0)))
        loader = DataLoader(
            Reporting(parts.train),
            batch_sampler=self.sampler,
            collate_fn=_as_is,
            num_workers=workers,
        )
        validation_loader, test_loader = (
            DataLoader(
                Reporting(data), batch_size=_EVAL_BATCH, collate_fn=_as_is, num_workers=workers
            )
            for data in (parts.validation, parts.test)
        )
        self.network, self.optimizer, self.loader = accelerator.prepare(model, optimizer, loader)
        self.validation_loader, self.test_loader = accelerator.prepare(
            validation_loader, test_loader
        )
        steps = len(self.loader)
        warmup = options.warmup_epochs * steps
        total = max(options.epochs * steps, 1)

        def schedule(step: int) -> float:
            rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
            return rise * 0.5 * (1 + math.cos(math.pi * min(1.0, step / total)))

        self.schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)

    def step(self, report_step: Callable[[StepReport], None] = _silent) -> EpochReport:
        """One epoch, its validation, and the files."""
        began = time.perf_counter()
        loss, speed = self._train_epoch(report_step)
        accuracy = self._accuracy(self.network, self.validation_loader)
        self.epoch += 1
        report = EpochReport(
            epoch=self.epoch,
            epochs=self.options.epochs,
            loss=loss,
            validation_accuracy=accuracy,
            learning_rate=float(self.schedule.get_last_lr()[0]),
            seconds=time.perf_counter() - began,
            images_per_second=speed,
        )
        self.history.append(report)
        is_best = accuracy >= self.best_accuracy
        if is_best:
            self.best_accuracy, self.best_epoch = accuracy, self.epoch
        if self.outputs is not None:
            self._write(self.outputs, is_best)
        self.accelerator.wait_for_everyone()
        return report

    def _train_epoch(self, report_step: Callable[[StepReport], None]) -> tuple[float, float]:
        """Mean loss, and images a second."""
        began = time.perf_counter()
        self.network.train()
        self.sampler.epoch = self.epoch
        begin_epoch(self.model, self.epoch, self.options.epochs)
        draws = _generator(self.options.seed, self.epoch, 1 + self.accelerator.process_index)
        total, count, speed = torch.zeros((), device=self.accelerator.device), 0, 0.0
        for done, (images, targets) in enumerate(batches(self.loader), 1):
            shown = self._augmented(images, draws)
            wisdom = None if self.teacher is None else self.teacher(shown)
            loss = classification_loss(
                self.network(shown), targets, self.options.label_smoothing, wisdom
            )
            self.optimizer.zero_grad()
            self.accelerator.backward(loss)
            self.accelerator.clip_grad_norm_(self.network.parameters(), self.options.clip_norm)
            self.optimizer.step()
            self.schedule.step()
            total += loss.detach() * len(targets)
            count += len(targets)
            speed = count / (time.perf_counter() - began)
            report_step(StepReport(self.epoch + 1, done, len(self.loader), speed))
        mean = float(total / count)
        if not math.isfinite(mean):
            raise VitcError(
                f"The loss stopped being finite in epoch {self.epoch + 1}.",
                f"Lower the learning rate, which is {self.options.learning_rate}.",
            )
        return mean, speed

    def _augmented(self, images: Tensor, draws: torch.Generator) -> Tensor:
        if not self.options.augment:
            return images
        moved = shift(images.cpu(), images.shape[-1] // 16, draws)
        if self.options.data != DIGITS:
            moved = mirror(moved, draws)
        return moved.to(images.device)

    @torch.no_grad()
    def _accuracy(self, network: nn.Module, loader: DataLoader[Any]) -> float:
        network.eval()
        right, count = 0, 0
        for images, targets in batches(loader):
            guesses = network(images).argmax(dim=-1)
            guesses, wanted = self.accelerator.gather_for_metrics((guesses, targets))
            right += int((guesses == wanted).sum())
            count += len(wanted)
        return right / count

    @property
    def _provenance(self) -> dict[str, Any]:
        """What the best checkpoint says about itself before it is judged."""
        return {
            "options": self.described,
            "epoch": self.best_epoch,
            "validation_accuracy": self.best_accuracy,
        }

    def _write(self, outputs: RunOutputs, is_best: bool) -> None:
        model = self.accelerator.unwrap_model(self.network)
        if is_best:
            model.history = self._provenance
            write_checkpoint(model, outputs.checkpoint)
        state = {
            "run": self.described,
            "epoch": self.epoch,
            "model": model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "best": {"validation_accuracy": self.best_accuracy, "epoch": self.best_epoch},
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
        self.accelerator.unwrap_model(self.network).load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        # With more epochs than before the rate is another one from the next step on.
        for group, base in zip(self.optimizer.param_groups, self.schedule.base_lrs, strict=True):
            group["lr"] = base * self.schedule.lr_lambdas[0](self.schedule.last_epoch)
        self.epoch = state["epoch"]
        self.best_accuracy = state["best"]["validation_accuracy"]
        self.best_epoch = state["best"]["epoch"]
        self.history = [EpochReport(**report) for report in state["history"]]

    def finish(self) -> TrainResult:
        """Judge the best checkpoint by the test images, and write that into it and the history.

        A resumed run that was finished takes the figure from the checkpoint.

        Raises:
            VitcError: If the checkpoint is not of this run.
        """
        test_accuracy = self._judge()
        best = {
            "epoch": self.best_epoch,
            "validation_accuracy": self.best_accuracy,
            "test_accuracy": test_accuracy,
        }
        if self.outputs is not None:
            write_history(self.outputs.history, self.described, self.history, best)
            write_curve(self.outputs.curve, self.history)
        return TrainResult(
            checkpoint=self.options.out,
            best_epoch=self.best_epoch,
            validation_accuracy=self.best_accuracy,
            test_accuracy=test_accuracy,
            history=tuple(self.history),
            seconds=sum(report.seconds for report in self.history),
            curve=self.options.curve,
            history_file=self.options.history,
        )

    def _judge(self) -> float:
        model = load(self.options.out)
        stated = dict(model.history)
        known = stated.pop("test_accuracy", None)
        if _apart_from_epochs(stated) != _apart_from_epochs(self._provenance):
            raise VitcError(
                f"{self.options.out} is not the best checkpoint of the run of {self.options.last}.",
                "Train without resuming.",
            )
        if known is not None:
            return float(known)
        accuracy = self._accuracy(model.to(self.accelerator.device), self.test_loader)
        if self.outputs is not None:
            model.history = {**self._provenance, "test_accuracy": accuracy}
            write_checkpoint(model, self.outputs.checkpoint)
        return accuracy


def _apart_from_epochs(provenance: Mapping[str, Any]) -> dict[str, Any]:
    options = provenance.get("options")
    if not isinstance(options, Mapping):
        return dict(provenance)
    return {**provenance, "options": {k: v for k, v in options.items() if k != EPOCHS}}


def _described(options: TrainOptions, start: str | None, teacher: str | None) -> dict[str, Any]:
    """The options as JSON values: data by their resolved path, checkpoints by their hash."""
    plain = {
        field.name: getattr(options, field.name)
        for field in fields(options)
        if field.name not in _NOT_OF_THE_RUN
    }
    return {
        **plain,
        "data": options.data if options.data == DIGITS else str(Path(options.data).resolve()),
        "background": None if options.background is None else list(options.background),
        "start": start,
        "teacher": teacher,
    }
