"""`vitc export`: a checkpoint to ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vitc import names
from vitc.cli.options import Checkpoint, Force, SkipCheck
from vitc.cli.output import Output, megabytes
from vitc.outputs import check_file

__all__ = ["export"]


def _known_format(name: str | None) -> str | None:
    return name and names.FORMATS.check(name)


def export(
    checkpoint: Checkpoint,
    out: Annotated[Path, typer.Option("--out", metavar="M.onnx", help="File to write.")],
    form: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="packed|int8|float",
            help="packed is what `vitc compile` reads; int8 is the fastest in ONNX Runtime.",
            show_default="packed",
            callback=_known_format,
        ),
    ] = None,
    scheme: Annotated[
        str | None, typer.Option("--scheme", hidden=True, callback=_known_format)
    ] = None,
    ema: Annotated[bool, typer.Option("--ema", help="Take the averaged weights.")] = False,
    allow_float: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-float",
            metavar="LAYER",
            help="A binary layer, or a module of some, that may be in float; may be repeated.",
        ),
    ] = None,
    inline: Annotated[
        bool,
        typer.Option(
            "--inline",
            help="Write vitc's operators out in standard ones, for readers that know no functions; "
            "weights stay packed.",
        ),
    ] = False,
    no_check: SkipCheck = False,
    force: Force = False,
) -> None:
    """Export a checkpoint to an ONNX file that any ONNX Runtime runs.

    The file is compared layer by layer with the checkpoint before it gets its name.
    """
    if form and scheme and form != scheme:
        raise typer.BadParameter(f"--format {form} and its old name --scheme {scheme} differ.")
    check_file(out, force=force)
    if not no_check:
        from vitc.onnx_files.confined import start

        start()  # ONNX Runtime, while PyTorch is imported
    from vitc.api import ExportOptions
    from vitc.api import export as export_file
    from vitc.models.checkpoint import load

    output = Output()
    options = ExportOptions(
        form=form or scheme or names.FORMATS.known[0],
        check=not no_check,
        allow_float=tuple(allow_float or ()),
        force=force,
        inline=inline,
    )
    with output.working(f"reading {checkpoint}") as say:
        model = load(checkpoint, ema=ema)
        done = export_file(model, out, options, say=say)
    for note in () if model.load_report is None else model.load_report.notes:
        output.note(f"{checkpoint}: {note}")
    for layer, why in done.float_layers.items():
        output.note(f"in float: {layer} ({why})")
    output.note(f"wrote {out} ({megabytes(done.file_bytes)})")
