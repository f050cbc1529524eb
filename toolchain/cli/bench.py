"""`vitc bench`: latency, side by side with a baseline."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vitc import names
from vitc.cli.claims import claimed
from vitc.cli.durations import Unit, unit_of
from vitc.cli.farm import show_benches
from vitc.cli.options import (
    Artefact,
    DeviceNames,
    EntryName,
    Force,
    JsonTo,
    ReportTo,
    Threads,
)
from vitc.cli.output import Output
from vitc.cli.report import Report, Subject, Verdict, latencies, write_report
from vitc.cli.tables import table
from vitc.errors import VitcError

if TYPE_CHECKING:
    from vitc.bench.estimate import Estimate
    from vitc.bench.measure import Latency
    from vitc.bench.profile import LayerTime, Profile

__all__ = ["bench"]


def _known_baseline(name: str | None) -> str | None:
    return name and names.BASELINES.check(name)


def _known_processor(name: str | None) -> str | None:
    return name and names.PROCESSORS.check(name)


def bench(
    artefact: Artefact,
    entry: EntryName = None,
    threads: Threads = 1,
    device: DeviceNames = "local",
    baseline: Annotated[
        str | None,
        typer.Option(
            "--baseline",
            help="onnxruntime (full-precision twin), onnxruntime-int8, packed, int8 or none. By "
            "default onnxruntime, and packed for a network without a configuration.",
            callback=_known_baseline,
            autocompletion=names.BASELINES.complete,
        ),
    ] = None,
    runs: Annotated[int, typer.Option("--runs", min=30, help="Timed runs of each side.")] = 60,
    warmup: Annotated[int, typer.Option("--warmup", min=0, help="Untimed runs a round.")] = 3,
    profile: Annotated[
        bool, typer.Option("--profile", help="Time each layer, as a fraction of the peak.")
    ] = False,
    estimate: Annotated[
        str | None,
        typer.Option(
            "--estimate",
            metavar="CPU",
            help="Model the time on cortex-a72, cortex-a76, neoverse-n1 or sapphire-rapids with "
            "llvm-mca.",
            callback=_known_processor,
            autocompletion=names.PROCESSORS.complete,
        ),
    ] = None,
    pin: Annotated[
        bool,
        typer.Option("--pin/--no-pin", help="Keep each thread on a core of its own, if possible."),
    ] = True,
    json_to: JsonTo = None,
    report_to: ReportTo = None,
    force: Force = False,
) -> None:
    """Time an artefact and, in turns with it, what a user would run instead."""
    output = Output(json_to, force=force)
    report_file = None if report_to is None else claimed(report_to, force=force)
    from vitc.bench import BenchOptions, bench_farm
    from vitc.bench import bench as measure
    from vitc.bench.measure import USUAL
    from vitc.devices.farm import is_farm

    options = BenchOptions(
        threads=threads,
        device=device,
        baseline=baseline or USUAL,
        runs=runs,
        warmup=warmup,
        profile=profile,
        estimate=estimate,
        pin=pin,
        entry=entry,
    )
    if is_farm(device):
        with output.working(f"timing {artefact} on {device}") as say:
            # No baseline of this machine stands beside a board.
            findings = bench_farm(artefact, replace(options, baseline=baseline), say=say)
        raise typer.Exit(show_benches(output, artefact, findings, report_file))
    if estimate is not None and _only_model(output, artefact, entry, estimate, report_to):
        return
    with output.working(f"timing {artefact}") as say:
        report = measure(artefact, options, say=say)
    sides = [(f"{report.target} artefact", report.latency)]
    if report.baseline is not None and report.baseline_latency is not None:
        sides.append((report.baseline[1], report.baseline_latency))
    unit = unit_of(latency.median for _, latency in sides)
    rows = [(side, *_times(latency, unit)) for side, latency in sides]
    heading = f"emulated {unit.name}" if report.emulated else unit.name
    output.show(table((heading, ">median", ">p10", ">p90", ">min"), rows))
    if report.ratio is not None:
        output.show(f"ratio {report.ratio:.2f}")
    output.show(
        f"{report.threads} {'pinned ' if report.pinned else ''}threads, batch {report.batch}, "
        f"{report.runs} runs, opened in {unit_of([report.load_ms]).text(report.load_ms)}, "
        f"{report.machine['cpu']}"
    )
    if report.instructions is not None:
        output.show(f"executed instructions per image {report.instructions / 1e6:.3f} M (no time)")
    if report.profile is not None:
        _show_profile(output, report.profile)
    if report.estimate is not None:
        _show_estimate(output, report.estimate)
    for warning in report.warnings:
        output.note(f"warning: {warning}")
    output.result(report.to_dict())
    if report_file is not None:
        found = report.to_dict()
        page = Report(
            title=f"Latency of {artefact}",
            subject=Subject.of(artefact),
            verdict=Verdict.of_bench(found),
            bars=latencies(found),
            bench=found,
            machine=report.machine,
        )
        write_report(report_file, page)
    if not report.emulated and device == "local":
        output.next("tune", artefact)


def _only_model(
    output: Output, folder: Path, entry: str | None, processor: str, report_to: Path | None
) -> bool:
    """Model an artefact that nothing here can run; returns whether it is one."""
    from vitc import api
    from vitc.bench.estimate import estimate, only_modelled

    artefact = api.open(folder).at(entry)
    if not only_modelled(artefact, processor):
        return False
    if report_to is not None:
        raise VitcError(
            f"Nothing here runs {folder}, so there are no times to report.", "Leave out --report."
        )
    with output.working(f"modelling {processor}"):
        found = estimate(artefact, processor)
    _show_estimate(output, found)
    missing = ", ".join(artefact.missing_features())
    output.note(f"warning: nothing was timed, since this machine lacks {missing}")
    output.result({"latency_ms": None, "estimate": found.to_dict()})
    return True


def _times(latency: Latency, unit: Unit) -> tuple[str, ...]:
    times = (latency.median, latency.p10, latency.p90, latency.min)
    return tuple(unit.number(time) for time in times)


def _show_profile(output: Output, profile: Profile) -> None:
    layers = profile.layers()
    unit = unit_of(layer.milliseconds for layer in layers)
    columns = ("layer", f">{unit.name}", ">share", ">binary MMAC", ">fp MMAC", ">of peak", "unit")
    rows = [_layer(layer, profile.milliseconds, unit) for layer in layers]
    output.show(table(columns, [*rows, _layer(profile.binary(), profile.milliseconds, unit)]))
    peaks = profile.peaks
    if peaks is None:
        output.note("peaks are measured on this machine only, so there are no fractions of them")
        return
    tiles = f", {peaks.int8_gmacs:.0f} G int8 MAC/s on tiles" if peaks.int8_gmacs else ""
    output.show(
        f"peaks of one core ({peaks.isa}): {peaks.popcount_gmacs:.0f} G binary MAC/s, "
        f"{peaks.fma_gmacs:.1f} G fp32 MAC/s{tiles}"
    )


def _layer(layer: LayerTime, total: float, unit: Unit) -> tuple[str, ...]:
    return (
        layer.name if layer.steps == 1 else f"{layer.name} ({layer.steps})",
        unit.number(layer.milliseconds),
        f"{layer.milliseconds / total:.1%}",
        f"{layer.macs.binary / 1e6:.1f}",
        f"{layer.macs.fp / 1e6:.1f}",
        "" if layer.peak is None else f"{layer.peak:.0%}",
        layer.unit or "",
    )


def _show_estimate(output: Output, estimate: Estimate) -> None:
    columns = ("kernel", ">calls", ">work/iteration", ">cycles/iteration", ">work/cycle", "unit")
    rows = [
        (
            kernel.kernel,
            str(kernel.steps),
            f"{kernel.macs:.0f}",
            f"{kernel.cycles:.1f}",
            f"{kernel.macs_per_cycle:.1f}",
            kernel.unit,
        )
        for kernel in estimate.kernels
    ]
    output.show(table(columns, rows))
    cpu = estimate.processor
    output.show(
        f"modelled, not measured: {estimate.milliseconds:.2f} ms on {cpu.name} at "
        f"{cpu.gigahertz} GHz without cache misses; {estimate.binary_macs_per_cycle:.1f} binary "
        f"MAC/cycle in hot loops, {estimate.slowest_product:.1f} in the slowest matrix product"
    )
