"""`vitc bench`: latency, side by side with a baseline."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vitc.cli.options import DeviceName, JsonTo, Threads
from vitc.cli.output import Output, table

if TYPE_CHECKING:
    from vitc.bench.measure import Latency

__all__ = ["bench"]

_NONE = "none"


def bench(
    artefact: Annotated[Path, typer.Argument(metavar="DIR", help="An artefact folder.")],
    threads: Threads = 1,
    device: DeviceName = "local",
    baseline: Annotated[
        str,
        typer.Option(
            "--baseline",
            help="onnxruntime (fp32 DeiT twin), onnxruntime-int8, packed, int8 or none.",
        ),
    ] = "onnxruntime",
    runs: Annotated[int, typer.Option("--runs", min=30, help="Timed runs of each side.")] = 60,
    warmup: Annotated[int, typer.Option("--warmup", min=0, help="Untimed runs a round.")] = 3,
    json_to: JsonTo = None,
) -> None:
    """Time an artefact and, in turns with it, what a user would run instead."""
    from vitc.bench import BenchOptions
    from vitc.bench import bench as measure

    output = Output(json_to)
    options = BenchOptions(
        threads=threads,
        device=device,
        baseline=None if baseline == _NONE else baseline,
        runs=runs,
        warmup=warmup,
    )
    with output.working(f"timing {artefact}") as say:
        report = measure(artefact, options, say=say)
    rows = [(f"{report.target} artefact", *_times(report.latency))]
    if report.baseline is not None and report.baseline_latency is not None:
        rows.append((report.baseline[1], *_times(report.baseline_latency)))
    unit = "emulated ms" if report.emulated else "ms"
    output.show(table("", (unit, ">median", ">p10", ">p90", ">min"), rows))
    if report.ratio is not None:
        output.show(f"ratio {report.ratio:.2f}")
    output.show(
        f"{report.threads} threads, batch {report.batch}, {report.runs} runs, "
        f"load {report.load_ms:.1f} ms, {report.machine['cpu']}"
    )
    for warning in report.warnings:
        output.note(f"warning: {warning}")
    output.result(report.to_dict())


def _times(latency: Latency) -> tuple[str, str, str, str]:
    return (
        f"{latency.median:.3f}",
        f"{latency.p10:.3f}",
        f"{latency.p90:.3f}",
        f"{latency.min:.3f}",
    )
