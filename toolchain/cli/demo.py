"""`vitc demo`: the whole way on a small network, ending in a table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vitc.cli.durations import Unit, unit_of
from vitc.cli.options import Force, JsonTo, Seed
from vitc.cli.output import Output, megabytes
from vitc.cli.tables import plain, table
from vitc.errors import ExitCode

if TYPE_CHECKING:
    from vitc.demo import DemoReport, TargetReport

__all__ = ["demo"]


def demo(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the files.")] = Path(
        "demo"
    ),
    quick: Annotated[
        bool, typer.Option("--quick", help="Train for seconds; the accuracy stays low.")
    ] = False,
    seed: Seed = 0,
    force: Force = False,
    json_to: JsonTo = None,
) -> None:
    """Train a small network, export it, compile it for this machine and for ARM, check and time it.

    Takes a few minutes and no downloads.
    """
    output = Output(json_to, force=force)
    from vitc.cli.train import describe
    from vitc.demo import DemoOptions
    from vitc.demo import demo as run_demo

    options = DemoOptions(out=out, quick=quick, seed=seed, force=force)
    with output.working("starting") as say:
        report = run_demo(
            options,
            say=say,
            trained=lambda epoch: say(
                f"training micro on the digits, epoch {epoch.epoch}/{epoch.epochs}: "
                f"{describe(epoch)}"
            ),
        )
    _show(output, report)
    output.note(f"all files are in {out.resolve()}")
    output.result(report.to_dict())
    if not report.equal:
        raise typer.Exit(int(ExitCode.NOT_EQUAL))


def _show(output: Output, report: DemoReport) -> None:
    reference = next(
        (t.check.accuracy.reference for t in report.targets if t.check and t.check.accuracy), None
    )
    twin = report.bench.baseline_latency
    latencies = [entry for entry in (report.bench.latency, twin) if entry is not None]
    unit = unit_of(entry.median for entry in latencies)
    rows = [
        (
            "PyTorch reference",
            "" if reference is None else f"{reference:.2%}",
            "",
            megabytes(report.checkpoint_bytes),
            "",
            "",
        )
    ]
    rows += [
        (f"{form} ONNX", "", "", megabytes(path.stat().st_size), "", "")
        for form, path in report.onnx.items()
    ]
    rows += [_row(entry, report, unit) for entry in report.targets]
    if report.bench.baseline is not None and twin is not None:
        rows.append((report.bench.baseline[1], "", "", "", unit.number(twin.median), "1"))
    columns = (
        "",
        ">test accuracy",
        ">max logit difference",
        ">size",
        f">latency {unit.name}",
        ">ratio",
    )
    output.show(table(columns, rows))
    output.show(
        f"epoch {report.training.best_epoch} was chosen by its validation accuracy, "
        f"{report.training.validation_accuracy:.2%}"
    )
    for entry in report.targets:
        if entry.skipped:
            output.show(plain(f"{entry.target}: {entry.skipped}", "yellow"))


def _row(
    entry: TargetReport, report: DemoReport, unit: Unit
) -> tuple[str, str, str, str, str, str]:
    timed = entry.target == report.targets[0].target
    checked = entry.check
    accuracy = difference = "skipped"
    if checked is not None:
        accuracy = "" if checked.accuracy is None else f"{checked.accuracy.candidate:.2%}"
        difference = f"{checked.max_logit_difference:.2g}" + ("" if checked.equal else " NOT EQUAL")
    ratio = report.bench.ratio
    return (
        f"{entry.target} artefact",
        accuracy,
        difference,
        megabytes(entry.library_bytes),
        unit.number(report.bench.latency.median) if timed else "",
        f"{ratio:.2f}" if timed and ratio is not None else "",
    )
