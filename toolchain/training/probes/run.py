"""The probes of a checkpoint."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from vitc.errors import VitcError
from vitc.models.preprocessing import Preprocessing
from vitc.models.twins.twin import Twin
from vitc.training.data import DIGITS, Dataset, load_dataset
from vitc.training.probes.dense import dense_score
from vitc.training.probes.features import encode, frozen_twin
from vitc.training.probes.linear import Schedule, fit, normalised
from vitc.training.probes.masks import find_masked
from vitc.training.probes.neighbours import nearest_classes
from vitc.training.probes.options import (
    DenseScore,
    LinearScore,
    NeighbourScore,
    ProbeOptions,
    ProbeResult,
)

__all__ = ["probe"]


def probe(options: ProbeOptions, say: Callable[[str], None] = lambda _: None) -> ProbeResult:
    """Find out what the features of a frozen network are worth.

    Nothing is chosen by the test images: a classifier is judged after its last epoch.

    Args:
        options: What to do.
        say: Told what is being done.

    Raises:
        VitcError: If the checkpoint or the data cannot be read or do not fit.
    """
    began = time.perf_counter()
    twin = frozen_twin(options.checkpoint)
    shown = twin.preprocessing.on(options.background)
    schedule = Schedule(options.epochs, options.batch_size, options.learning_rate)
    dense: DenseScore | None = None
    if options.dense:
        dense = _dense(options, twin, shown, schedule, say)
    linear, knn = (
        _of_images(options, twin, shown, schedule, say)
        if options.linear or options.knn
        else (None, None)
    )
    return ProbeResult(
        options=options,
        checkpoint_sha256=twin.source_sha256,
        arch=twin.config.arch,
        seconds=time.perf_counter() - began,
        linear=linear,
        knn=knn,
        dense=dense,
    )


def _dense(
    options: ProbeOptions,
    twin: Twin,
    shown: Preprocessing,
    schedule: Schedule,
    say: Callable[[str], None],
) -> DenseScore:
    if options.data == DIGITS:
        raise VitcError(
            "The digits have no masks.", "Name a folder of pictures and masks for a dense probe."
        )
    train, test = find_masked(Path(options.data), shown)
    return dense_score(twin, train, test, schedule, void=options.void, seed=options.seed, say=say)


def _of_images(
    options: ProbeOptions,
    twin: Twin,
    shown: Preprocessing,
    schedule: Schedule,
    say: Callable[[str], None],
) -> tuple[LinearScore | None, NeighbourScore | None]:
    train = load_dataset(options.data, shown, "train")
    classes = len(train.labels)
    if classes < 2:
        raise VitcError(
            f"{options.data} has one class, {train.labels[0]!r}.", "A probe needs two or more."
        )
    test = load_dataset(options.data, shown, "test", train.labels)
    if options.knn and options.neighbours > len(train):
        raise VitcError(
            f"There are {len(train)} images to look among for {options.neighbours} neighbours.",
            f"Use --neighbours {len(train)} or fewer.",
        )

    def features(part: Dataset, what: str) -> Tensor:
        return normalised(
            encode(
                twin,
                part.images,
                pooled=True,
                done=lambda count: say(f"{what} images: {count} of {len(part)} encoded"),
            )
        )

    known, asked = features(train, "training"), features(test, "test")
    linear, knn = None, None
    if options.linear:
        head = fit(
            known,
            train.targets,
            classes,
            schedule,
            seed=options.seed,
            done=lambda epoch, loss: say(
                f"linear probe: epoch {epoch}/{options.epochs}, loss {loss:.3f}"
            ),
        )
        linear = LinearScore(
            accuracy=_share(head(asked).argmax(dim=1), test.targets),
            train_accuracy=_share(head(known).argmax(dim=1), train.targets),
            train_images=len(train),
            test_images=len(test),
        )
    if options.knn:
        say("nearest neighbours")
        guesses = nearest_classes(
            known, train.targets, asked, neighbours=options.neighbours, classes=classes
        )
        knn = NeighbourScore(
            _share(guesses, test.targets), options.neighbours, len(train), len(test)
        )
    return linear, knn


def _share(guesses: Tensor, targets: Tensor) -> float:
    return int((guesses == targets).sum()) / len(targets)
