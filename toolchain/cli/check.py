"""`vitc check`: an artefact or an ONNX file against its checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vitc.cli.claims import claimed
from vitc.cli.farm import show_checks
from vitc.cli.options import (
    AllowExternalData,
    Background,
    Data,
    DeviceNames,
    EntryName,
    Force,
    JsonTo,
    ReportTo,
    Seed,
    Threads,
    existing,
)
from vitc.cli.output import Output
from vitc.cli.report import Report, Subject, Verdict, accuracies, write_report
from vitc.cli.tables import plain, table
from vitc.errors import ExitCode
from vitc.extras import need

if TYPE_CHECKING:
    from vitc.verify.report import CheckReport, Rounded

__all__ = ["check"]

_LISTED = 10


def check(
    candidate: Annotated[
        Path,
        typer.Argument(
            metavar="DIR|M.onnx",
            help="An artefact folder or an exported file.",
            callback=existing(
                "artefact folder or ONNX file", "Check what `vitc compile` or `vitc export` wrote."
            ),
        ),
    ],
    reference: Annotated[
        Path,
        typer.Option(
            "--reference",
            metavar="CKPT",
            help="What it was made from.",
            callback=existing("checkpoint", "Name the one that it was exported from."),
        ),
    ],
    ema: Annotated[
        bool, typer.Option("--ema", help="Of CKPT the averaged weights, as in the export.")
    ] = False,
    data: Data = None,
    background: Background = None,
    entry: EntryName = None,
    images: Annotated[
        int, typer.Option("--images", min=1, help="Images to compare layer by layer.")
    ] = 4,
    per_layer: Annotated[bool, typer.Option("--per-layer", help="Show every layer.")] = False,
    threads: Threads = 1,
    device: DeviceNames = "local",
    seed: Seed = 0,
    rebuild: Annotated[
        bool,
        typer.Option(
            "--rebuild/--no-rebuild",
            help="Compile an artefact's ONNX file again and compare every byte of its library.",
        ),
    ] = True,
    allow_external_data: AllowExternalData = False,
    json_to: JsonTo = None,
    report_to: ReportTo = None,
    force: Force = False,
) -> None:
    """Prove that a candidate computes what its checkpoint computes, or name the layer that differs.

    Exit code 0 if equal, 3 if not.
    """
    if candidate.is_dir() and rebuild:
        need("`vitc check`", "train", "compile", hint="--no-rebuild does without vitc[compile]")
    need("`vitc check`", "train")
    output = Output(json_to, force=force)
    report_file = None if report_to is None else claimed(report_to, force=force)
    from vitc.onnx_files.confined import start

    start()  # ONNX Runtime, while PyTorch is imported
    from vitc.devices.farm import is_farm
    from vitc.models.picture import parse_colour
    from vitc.verify import CheckOptions, check_farm
    from vitc.verify import check as check_candidate

    options = CheckOptions(
        data=data,
        background=None if background is None else parse_colour(background),
        device=device,
        images=images,
        seed=seed,
        threads=threads,
        allow_external_data=allow_external_data,
        rebuild=rebuild,
        ema=ema,
        entry=entry,
    )
    if is_farm(device):
        with output.working(f"reading {candidate}") as say:
            findings = check_farm(candidate, reference, options, say=say, note=output.note)
        raise typer.Exit(show_checks(output, candidate, findings, report_file))
    with output.working(f"reading {candidate}") as say:
        report = check_candidate(candidate, reference, options, say=say, note=output.note)
    output.show(plain(report.verdict, "bold" if report.equal else "bold red"))
    for part in (report.onnx, report):
        if part is not None:
            _show(output, part, per_layer)
    output.result(report.to_dict())
    if report_file is not None:
        found = report.to_dict()
        page = Report(
            title=f"Check of {candidate}",
            subject=Subject.of(candidate, allow_external_data=allow_external_data),
            verdict=Verdict.of_check(found),
            bars=accuracies(found),
            checks=[found],
            machine=report.machine,
        )
        write_report(report_file, page)
    if report.equal and candidate.is_dir():
        output.next("bench", candidate, *(("--device", device) if device != "local" else ()))
    elif report.equal:
        output.next("compile", candidate)
    if not report.equal:
        raise typer.Exit(int(ExitCode.NOT_EQUAL))


def _show(output: Output, report: CheckReport, per_layer: bool) -> None:
    output.show(plain(f"{report.candidate} on {report.device}", "bold"))
    if per_layer:
        output.show(
            table(
                ("layer", "kind", ">values", ">wrong", ">near ties", ">largest error"),
                [
                    (
                        layer.name,
                        layer.kind,
                        str(layer.values),
                        str(layer.mismatches),
                        str(layer.near_ties),
                        f"{layer.max_error:.3g}",
                    )
                    for layer in report.layers
                ],
            )
        )
    bits = sum(layer.values for layer in report.layers if layer.kind != "float")
    facts = [
        ("layers compared", f"{len(report.layers)}, {bits} bits and integers"),
        ("parameters that differ", str(len(report.parameters))),
        ("near ties accepted", str(report.near_tie_count)),
        ("images", f"{report.images}, {report.layer_images} of them layer by layer"),
    ]
    facts += [
        (f"largest difference of {output.name}", f"{output.max_difference:.3g}")
        for output in report.outputs
    ]
    if report.top1_agreement is not None:
        facts.append(("same class", f"{report.top1_agreement:.2%}"))
    if report.library is not None:
        facts.append(("library", report.library))
    if report.accuracy is not None:
        facts += [
            ("accuracy of the reference", f"{report.accuracy.reference:.2%}"),
            ("accuracy of the candidate", f"{report.accuracy.candidate:.2%}"),
        ]
    if report.rounded is not None:
        facts += _rounded(report.rounded)
    for name, figure in report.measures.items():
        facts += [
            (f"{name} of the reference", f"{figure.reference:.4f}"),
            (f"{name} of the candidate", f"{figure.candidate:.4f}"),
        ]
    output.show(table(("", ""), facts))
    wrong = [*report.faults, *(f"{p.layer}: {p.name}: {p.detail}" for p in report.parameters)]
    ties = [
        f"near tie at {tie.tap}{list(tie.index)}: {tie.margin:.2g} within {tie.bound:.2g}"
        for tie in report.near_ties
    ]
    images = [f"{i.what}{' (a near tie)' if i.explained else ''}" for i in report.differing_images]
    output.show(*(plain(line, "red") for line in _capped(wrong, len(wrong))))
    output.show(*_capped(ties, report.near_tie_count), *_capped(images, len(images)))


def _rounded(found: Rounded) -> list[tuple[str, str]]:
    """What was rounded changes."""
    beside = f"{found.what} beside fp32"
    facts = [
        (f"bits that differ, {beside}", f"{found.bits:.2%} of {found.images} images")
    ]
    if found.same_class is not None:
        facts.append((f"same class, {beside}", f"{found.same_class:.2%}"))
    if found.accuracy is not None:
        own = f"{found.accuracy.reference:.2%}, {found.accuracy.candidate:.2%}"
        facts.append((f"accuracy of fp32, {found.what}", own))
    return facts


def _capped(lines: list[str], count: int) -> list[str]:
    """The first lines, and how many there are beside."""
    shown = lines[:_LISTED]
    return [*shown, f"... and {count - len(shown)} more"] if count > len(shown) else shown
