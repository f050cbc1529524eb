"""`vitc export`: a checkpoint to ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vitc.cli.options import OnnxScheme, SkipCheck
from vitc.cli.output import Output, megabytes

__all__ = ["export"]


def export(
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="A .safetensors or .pth.tar.")],
    out: Annotated[Path, typer.Option("--out", metavar="M.onnx", help="File to write.")],
    scheme: Annotated[
        OnnxScheme, typer.Option("--scheme", help="packed is what `vitc compile` reads.")
    ] = OnnxScheme.PACKED,
    ema: Annotated[bool, typer.Option("--ema", help="Take the averaged weights.")] = False,
    allow_float: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-float",
            metavar="LAYER",
            help="A binary layer, or a module of some, that may be in float; may be repeated.",
        ),
    ] = None,
    no_check: SkipCheck = False,
) -> None:
    """Export a checkpoint to an ONNX file that any ONNX Runtime runs.

    The file is compared layer by layer with the checkpoint before it gets its name.
    """
    from vitc.api import ExportOptions
    from vitc.api import export as export_file
    from vitc.models.checkpoint import load

    output = Output()
    options = ExportOptions(
        scheme=scheme.value, check=not no_check, allow_float=tuple(allow_float or ())
    )
    with output.working(f"reading {checkpoint}") as say:
        model = load(checkpoint, ema=ema)
        done = export_file(model, out, options, say=say)
    for note in () if model.load_report is None else model.load_report.notes:
        output.note(f"{checkpoint}: {note}")
    for layer, why in done.float_layers.items():
        output.note(f"in float: {layer} ({why})")
    output.note(f"wrote {out} ({megabytes(out.stat().st_size)})")
