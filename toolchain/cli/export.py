"""`vitc export`: a checkpoint to ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from vitc import names
from vitc.cli.options import (
    Checkpoint,
    Force,
    SkipCheck,
    bits,
    colours,
    existing,
    known_data,
    pixels,
)
from vitc.cli.output import Output, megabytes
from vitc.outputs import check_file

__all__ = ["export"]


def _known_format(name: str | None) -> str | None:
    return name and names.FORMATS.check(name)


_SCHEMES: Final = names.Names("scheme", (*names.SCHEMES.known, *names.FORMATS.known))
"""Of binarization; formats are what the option once named."""


def _stem(checkpoint: Path) -> str:
    """Name of a checkpoint without its suffixes, of which ``.pth.tar`` has two."""
    return checkpoint.name.removesuffix(".tar").rpartition(".")[0] or checkpoint.name


def export(
    checkpoint: Checkpoint,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="M.onnx", help="File to write; by default CKPT.onnx in this folder."
        ),
    ] = None,
    form: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="packed|int8|float",
            help="packed is what `vitc compile` reads; int8 is the fastest in ONNX Runtime.",
            show_default="packed",
            callback=_known_format,
            autocompletion=names.FORMATS.complete,
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            "--labels",
            metavar="FILE",
            help="Names of the classes: one a line, or JSON.",
            callback=existing("file of labels", "Write one name a line."),
        ),
    ] = None,
    resize: Annotated[
        Any,
        typer.Option(
            "--resize",
            metavar="H|HxW",
            parser=pixels,
            help="Shorter side of a picture before its crop.",
        ),
    ] = None,
    crop: Annotated[
        Any,
        typer.Option(
            "--crop",
            metavar="H|HxW",
            parser=pixels,
            help="Centre of it, which the network sees.",
        ),
    ] = None,
    interpolation: Annotated[
        str | None,
        typer.Option(
            "--interpolation",
            metavar="bicubic|bilinear|nearest",
            help="Filter of the resizing.",
            callback=names.optional(names.INTERPOLATIONS),
            autocompletion=names.INTERPOLATIONS.complete,
        ),
    ] = None,
    mean: Annotated[
        Any,
        typer.Option("--mean", metavar="R,G,B", parser=colours, help="Subtracted from [0, 1]."),
    ] = None,
    std: Annotated[
        Any, typer.Option("--std", metavar="R,G,B", parser=colours, help="Divided by.")
    ] = None,
    weight_bits: Annotated[
        Any,
        typer.Option(
            "--weight-bits",
            metavar="1|32",
            parser=bits,
            help="32 for a checkpoint of the 32W1A step, which looks the same.",
        ),
    ] = None,
    scheme: Annotated[
        str | None,
        typer.Option(
            "--scheme",
            metavar="bibert|recu|bit",
            help="How signs were made, if the file does not say.",
            callback=names.optional(_SCHEMES),
            autocompletion=names.SCHEMES.complete,
        ),
    ] = None,
    embedding: Annotated[
        str,
        typer.Option(
            "--embedding",
            metavar="fp32|int15|int8",
            help="Integers of 15 or 8 bits on pictures of bytes, instead of normalised floats.",
            callback=names.EMBEDDINGS.check,
            autocompletion=names.EMBEDDINGS.complete,
        ),
    ] = "fp32",
    ends: Annotated[
        str,
        typer.Option(
            "--ends",
            metavar="fp32|int8",
            help="Codes and weights of 8 bits in the other products of floats: merging, reduction, "
            "convolutions, head.",
            callback=names.ENDS.check,
            autocompletion=names.ENDS.complete,
        ),
    ] = "fp32",
    calibrate: Annotated[
        str | None,
        typer.Option(
            "--calibrate",
            metavar="digits|DIR",
            help="With --ends int8: pictures whose values say how floats become codes.",
            show_default="random ones, good for timing only",
            callback=known_data,
        ),
    ] = None,
    calibration_images: Annotated[
        int, typer.Option("--calibration-images", metavar="N", min=1, help="How many of them.")
    ] = 64,
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

    The file is compared layer by layer with the checkpoint before it gets its name. What a
    checkpoint of another program does not say, such as labels and preprocessing, is assumed, and
    shown as options, unless you state it.
    """
    if scheme in names.FORMATS.known:
        if form and form != scheme:
            raise typer.BadParameter(f"--format {form} and its old name --scheme {scheme} differ.")
        form, scheme = scheme, None
    if calibrate is not None and ends == "fp32":
        raise typer.BadParameter("--calibrate is for --ends int8.")
    out = out or Path(f"{_stem(checkpoint)}.onnx")
    check_file(out, force=force)
    if not no_check:
        from vitc.onnx_files.confined import start

        start()  # ONNX Runtime, while PyTorch is imported
    from vitc.api import ExportOptions
    from vitc.api import export as export_file
    from vitc.models.checkpoint import load
    from vitc.models.stated import Stated, read_labels

    output = Output()
    options = ExportOptions(
        form=form or names.FORMATS.known[0],
        check=not no_check,
        allow_float=tuple(allow_float or ()),
        force=force,
        inline=inline,
        embedding=embedding,
        ends=ends,
        calibrate=calibrate,
        calibration_images=calibration_images,
    )
    stated = Stated(
        labels=None if labels is None else read_labels(labels),
        resize=resize,
        crop=crop,
        interpolation=interpolation,
        mean=mean,
        std=std,
    )
    with output.working(f"reading {checkpoint}") as say:
        model = load(checkpoint, ema=ema, scheme=scheme, weight_bits=weight_bits, stated=stated)
        done = export_file(model, out, options, say=say)
    for note in () if model.load_report is None else model.load_report.notes:
        output.note(f"{checkpoint}: {note}")
    for layer, why in done.float_layers.items():
        output.note(f"in float: {layer} ({why})")
    if ends != "fp32" and calibrate is None:
        output.note(
            "calibrated on random images, good for timing only; name pictures with --calibrate"
        )
    output.note(f"wrote {out} ({megabytes(done.file_bytes)})")
    if options.form == "packed" and not (inline or done.float_layers):
        output.next("compile", out)
    else:
        output.next("run", out, "PHOTO.jpg")
