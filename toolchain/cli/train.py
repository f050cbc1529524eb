"""`vitc train`: a network from labelled images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vitc import names
from vitc.cli.options import Background, JsonTo, Seed, existing, known_data
from vitc.cli.output import Output

if TYPE_CHECKING:
    from vitc.training import EpochReport

__all__ = ["describe", "train"]

_CHECKPOINT = existing("checkpoint", "Make one with `vitc new` or `vitc train`.")


def describe(report: EpochReport) -> str:
    """One epoch in a few words, for a progress bar."""
    return f"loss {report.loss:.3f}, validation accuracy {report.validation_accuracy:.2%}"


def train(
    out: Annotated[
        Path, typer.Option("--out", metavar="M.safetensors", help="The best checkpoint.")
    ],
    preset: Annotated[
        str, typer.Option("--preset", help="See `vitc models`.", callback=names.PRESETS.check)
    ] = "micro",
    data: Annotated[
        str,
        typer.Option(
            "--data",
            metavar="digits|DIR",
            help="Digits, or class folders.",
            callback=known_data,
        ),
    ] = "digits",
    background: Background = None,
    epochs: Annotated[int, typer.Option("--epochs", min=1, help="Passes over the data.")] = 40,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Images a step.")] = 64,
    learning_rate: Annotated[
        float, typer.Option("--learning-rate", min=0, help="Peak of the schedule.")
    ] = 5e-3,
    depth: Annotated[int | None, typer.Option("--depth", min=1, help="Blocks.")] = None,
    si: Annotated[
        bool | None, typer.Option("--si/--no-si", help="With or without spatial interaction.")
    ] = None,
    weight_bits: Annotated[
        int, typer.Option("--weight-bits", help="32 for the first of two steps (32W1A), else 1.")
    ] = 1,
    start: Annotated[
        Path | None,
        typer.Option(
            "--start", metavar="CKPT", help="Begin from these weights.", callback=_CHECKPOINT
        ),
    ] = None,
    teacher: Annotated[
        Path | None,
        typer.Option(
            "--teacher", metavar="CKPT", help="Distil from this network.", callback=_CHECKPOINT
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where a run stopped.")] = False,
    seed: Seed = 0,
    json_to: JsonTo = None,
) -> None:
    """Train a network; the best checkpoint, the last state and a curve lie beside each other.

    The best epoch is chosen by validation images: a tenth of the training ones,
    or those of val/ where DIR has train/, val/ and test/.
    The test images are looked at once, to judge the best checkpoint.
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from vitc.models.picture import parse_colour
    from vitc.training import TrainOptions
    from vitc.training import train as run_training

    output = Output(json_to)
    options = TrainOptions(
        out=out,
        data=data,
        background=None if background is None else parse_colour(background),
        preset=preset,
        depth=depth,
        si=si,
        weight_bits=weight_bits,
        start=start,
        teacher=teacher,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
        resume=resume,
    )
    columns = (
        TextColumn("epoch {task.completed}/{task.total}"),
        BarColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=output.notes) as bar:
        task = bar.add_task("", total=epochs)
        result = run_training(
            options,
            lambda report: bar.update(task, completed=report.epoch, description=describe(report)),
            note=output.note,
        )
    output.show(
        f"test accuracy {result.test_accuracy:.2%}, of epoch {result.best_epoch}, "
        f"chosen by its validation accuracy {result.validation_accuracy:.2%}; "
        f"{result.seconds:.0f} s"
    )
    output.note(f"wrote {result.checkpoint}, {result.curve}, {result.history_file}")
    output.result(
        {
            "checkpoint": str(result.checkpoint),
            "best_epoch": result.best_epoch,
            "validation_accuracy": result.validation_accuracy,
            "test_accuracy": result.test_accuracy,
            "seconds": result.seconds,
            "curve": str(result.curve),
            "history": str(result.history_file),
        }
    )
