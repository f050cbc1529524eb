"""`vitc demo`: the whole way on a small network, ending in a table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vitc.cli.durations import Unit, unit_of
from vitc.cli.options import Force, JsonTo, Seed
from vitc.cli.output import Output, megabytes
from vitc.cli.report import (
    Bars,
    Report,
    Subject,
    Verdict,
    accuracies,
    latencies,
    write_report,
)
from vitc.cli.tables import plain, table
from vitc.errors import ExitCode
from vitc.outputs import claim_file

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
    with claim_file(options.report, force=force) as page:
        write_report(page, _page(report))
    output.result({**report.to_dict(), "report": str(options.report)})
    output.note(f"all files are in {out.resolve()}")
    output.note(f"report: {options.report.resolve()}")
    if not report.equal:
        raise typer.Exit(int(ExitCode.NOT_EQUAL))


def _page(report: DemoReport) -> Report:
    found = report.to_dict()
    checked = [entry for entry in report.targets if entry.check is not None]
    names = " and ".join(entry.target for entry in checked)
    verdict = Verdict("equal" if report.equal else "not equal", report.equal)
    ratio = report.bench.ratio
    if report.equal and ratio is not None:
        verdict = replace(verdict, text=f"equal, and {ratio:.2f} times as fast as its twin")
    training = report.training
    detail = (
        f"Checked on every test image: {names}. Epoch {training.best_epoch} was chosen by its "
        f"validation accuracy, {training.validation_accuracy:.2%}; test accuracy "
        f"{training.test_accuracy:.2%}."
    )
    sizes = [("checkpoint, fp32", report.checkpoint_bytes)]
    sizes = [(f"{e.target} artefact", e.library_bytes) for e in report.targets] + sizes
    checks = [entry["check"] for entry in found["targets"] if entry["check"] is not None]
    return Report(
        title="Demo of the network micro on the digits",
        subject=Subject.of(report.targets[0].artefact),
        verdict=replace(verdict, detail=detail),
        bars=[
            *latencies(found["bench"]),
            *(accuracies(checks[0]) if checks else ()),
            Bars.sizes("Size of the library, weights included", sizes),
        ],
        checks=checks,
        bench=found["bench"],
        curve=training.curve.read_bytes(),
        machine=report.bench.machine,
    )


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
