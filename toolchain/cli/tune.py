"""`vitc tune`: the fastest register tiles for an artefact's kernels on a device."""

from __future__ import annotations

from typing import Annotated

import typer

from vitc.cli.durations import unit_of
from vitc.cli.options import Artefact, DeviceName, Force, JsonTo
from vitc.cli.output import Output
from vitc.cli.tables import table

__all__ = ["tune"]


def tune(
    artefact: Artefact,
    device: DeviceName = "local",
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Turns of each tile.")] = 10,
    runs: Annotated[int, typer.Option("--runs", min=1, help="Timed runs of a turn.")] = 5,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Time again what is known of this processor.")
    ] = False,
    force: Force = False,
    json_to: JsonTo = None,
) -> None:
    """Try other register tiles for every kernel, and keep what is faster on the device.

    DIR is compiled anew with the fastest tiles, checked, and timed in turns with what it held; only
    a faster library takes its place. What was found is kept by processor.
    """
    output = Output(json_to, force=force)
    from vitc.bench.tuning import TuneOptions
    from vitc.bench.tuning import tune as search

    options = TuneOptions(device=device, rounds=rounds, runs=runs, fresh=fresh)
    with output.working(f"tuning {artefact}") as say:
        report = search(artefact, options, say=say)
    times = [(choice.usual_ms, choice.chosen_ms) for choice in report.kernels]
    unit = unit_of(time for pair in times for time in pair if time is not None)
    rows = [
        (
            choice.kernel,
            str(choice.calls),
            str(choice.usual),
            str(choice.chosen),
            "" if choice.usual_ms is None else unit.number(choice.usual_ms),
            "" if choice.chosen_ms is None else unit.number(choice.chosen_ms),
        )
        for choice in report.kernels
    ]
    columns = (
        "kernel",
        ">calls",
        "usual tile",
        "fastest tile",
        f">usual {unit.name}",
        f">fastest {unit.name}",
    )
    output.show(table(columns, rows))
    output.note("timed on one processor, to which the thread was pinned")
    if report.before is None or report.after is None:
        output.show(f"{report.artefact} has the fastest tiles known for {report.cpu} already")
    else:
        before, after = report.before, report.after
        unit = unit_of([before.median, after.median])
        output.show(
            f"{unit.text(before.median)} before, {unit.text(after.median)} after (medians, "
            f"{unit.number(before.min)} and {unit.number(after.min)} at least) on {report.cpu}: "
            + ("replaced" if report.replaced else "not faster, kept as it was")
        )
    output.result(report.to_dict())
    output.next("bench", artefact)
