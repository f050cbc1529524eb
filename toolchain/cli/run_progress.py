"""What commands say while a network trains, and how one goes on after an interruption."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from vitc.cli.output import Output

if TYPE_CHECKING:
    from vitc.training import EpochReport
    from vitc.training.options import RunOptions, StepReport

__all__ = ["going_on", "run_shown"]

_Result = TypeVar("_Result")


def run_shown(
    output: Output,
    options: RunOptions,
    describe: Callable[[EpochReport], str],
    run: Callable[..., _Result],
) -> _Result:
    """Run a training and tell of it; one that is interrupted says how to go on.

    Args:
        output: Where it is told.
        options: Of the run.
        describe: One epoch in a few words, the least telling last.
        run: Takes the options, what is called after an epoch, and by name `note` and `step`.
    """
    before = _written(options.last)
    with _shown(output, options.epochs, describe) as (progress, step):
        try:
            return run(options, progress, note=output.note, step=step)
        except KeyboardInterrupt:
            output.note(going_on(options, before))
            raise


@contextmanager
def _shown(
    output: Output, epochs: int, describe: Callable[[EpochReport], str]
) -> Iterator[tuple[Callable[[EpochReport], None], Callable[[StepReport], None]]]:
    """What is told of each epoch and step: a bar on a terminal, elsewhere a line an epoch.

    Args:
        output: Where it goes.
        epochs: Of the run.
        describe: One epoch in a few words, the least telling last.
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    if not output.notes.is_terminal:
        yield (
            lambda report: output.note(
                f"epoch {report.epoch}/{report.epochs}: {describe(report)}, {report.seconds:.1f} s"
            ),
            lambda _: None,
        )
        return
    columns = (
        TextColumn("epoch {task.fields[epoch]}/{task.total:.0f}", markup=False),
        BarColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=output.notes) as bar:
        task = bar.add_task("", total=epochs, epoch=0)
        said = ""

        def progress(report: EpochReport) -> None:
            nonlocal said
            said = describe(report)
            bar.update(task, completed=report.epoch, epoch=report.epoch, description=said)

        def step(report: StepReport) -> None:
            done = report.epoch - 1 + report.step / report.steps
            speed = f"{report.images_per_second:.0f} images/s"
            shown = f"{speed}; {said.rpartition(', ')[0]}" if said else speed
            bar.update(task, completed=done, epoch=report.epoch, description=shown)

        yield progress, step


def _written(path: Path) -> int | None:
    """When a file was written, ns; None if there is none."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None


def going_on(options: RunOptions, before: int | None) -> str:
    """What to do after an interruption: the command that was given, resumed.

    Args:
        options: Of the run.
        before: When its last state had been written as it began, ns.
    """
    program = Path(sys.argv[0])
    called = [sys.executable, "-m", "vitc"] if program.name == "__main__.py" else ["vitc"]
    now = _written(options.last)
    begun = now is not None and (options.resume or now != before)
    drop = ("--force", "--resume") if begun else ("--resume",)
    given = [word for word in sys.argv[1:] if word not in drop]
    command = shlex.join([*called, *given, *(["--resume"] if begun else [])])
    return (
        f"interrupted; {'go on' if begun else 'no epoch was finished, begin again'} with: {command}"
    )
