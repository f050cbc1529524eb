"""`vitc run`: images or an array through an artefact."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vitc.cli.options import AllowExternalData, Background, DeviceName, JsonTo, Threads, existing
from vitc.cli.output import Output
from vitc.cli.tables import table

__all__ = ["run"]


def run(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="DIR",
            help="An artefact folder, or an exported .onnx.",
            callback=existing("artefact folder or ONNX file", "Make one with `vitc compile`."),
        ),
    ],
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="INPUT...", help="Images, or one .npy [B,3,H,W] fp32, already normalised."
        ),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="LOGITS.npy", help="Write the logits.")
    ] = None,
    topk: Annotated[int, typer.Option("--topk", min=1, help="Classes to show an image.")] = 5,
    background: Background = None,
    threads: Threads = 1,
    device: DeviceName = "local",
    allow_external_data: AllowExternalData = False,
    json_to: JsonTo = None,
) -> None:
    """Classify images, or run an array."""
    from vitc.devices.prediction import PredictOptions, predict, write_logits
    from vitc.models.picture import parse_colour

    output = Output(json_to)
    options = PredictOptions(
        threads=threads,
        device=device,
        allow_external_data=allow_external_data,
        background=None if background is None else parse_colour(background),
    )
    with output.working(f"running {model}"):
        prediction = predict(model, inputs, options)
    if out is not None:
        write_logits(prediction.logits, out)
    rows = [
        (name if rank == 0 else "", entry.label, f"{entry.probability:.3f}", f"{entry.logit:.5g}")
        for index, name in enumerate(prediction.names)
        for rank, entry in enumerate(prediction.top(index, topk))
    ]
    output.show(table(("input", "class", ">probability", ">logit"), rows))
    output.result(prediction.to_dict(topk))
