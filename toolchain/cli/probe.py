"""`vitc probe`: what the features of a frozen network are worth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vitc.cli.options import Background, Data, Force, JsonTo, Seed, existing
from vitc.cli.output import Output
from vitc.cli.tables import table

__all__ = ["probe"]


def probe(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            metavar="TWIN",
            help="A full-precision network: vitc's own, or of Hugging Face, timm, PVT's authors.",
            callback=existing(
                "checkpoint", "Make one with `vitc train --full-precision --out T.safetensors`."
            ),
        ),
    ],
    data: Data = "digits",
    linear: Annotated[bool, typer.Option("--linear", help="A linear classifier.")] = False,
    knn: Annotated[bool, typer.Option("--knn", help="The nearest neighbours.")] = False,
    dense: Annotated[
        bool,
        typer.Option(
            "--dense",
            help="A linear classifier of places, on DIR with train/ and trainannot/, images/ and "
            "masks/, or pictures with transparency.",
        ),
    ] = False,
    background: Background = None,
    epochs: Annotated[int, typer.Option("--epochs", min=1, help="Of a linear classifier.")] = 90,
    batch_size: Annotated[int, typer.Option("--batch-size", min=2, help="Images a step.")] = 256,
    learning_rate: Annotated[
        float, typer.Option("--learning-rate", min=0, help="Peak, for 256 images a step.")
    ] = 0.1,
    neighbours: Annotated[
        int, typer.Option("--neighbours", min=1, help="Nearest ones that vote.")
    ] = 20,
    void: Annotated[
        int,
        typer.Option("--void", min=-1, max=255, help="Value of a mask that is no class; -1: none."),
    ] = 255,
    seed: Seed = 0,
    json_to: JsonTo = None,
    force: Force = False,
) -> None:
    """Judge the features of a frozen network: linear, nearest neighbours, dense.

    Without --linear, --knn and --dense it is the first two. The network does not learn; its
    features are the places of its last map before the last norm, of a whole image their mean.
    """
    output = Output(json_to, force=force)
    from vitc.models.picture import parse_colour
    from vitc.training.probes.options import ProbeOptions

    chosen = linear or knn or dense
    options = ProbeOptions(
        checkpoint=checkpoint,
        data=data or "digits",
        linear=linear or not chosen,
        knn=knn or not chosen,
        dense=dense,
        background=None if background is None else parse_colour(background),
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        neighbours=neighbours,
        void=void,
        seed=seed,
    )
    from vitc.training.probes.run import probe as run_probe

    with output.working(f"reading {checkpoint}") as say:
        result = run_probe(options, say)
    rows = []
    if result.linear is not None:
        told = f"training {result.linear.train_accuracy:.2%}"
        rows.append(("linear probe", f"test accuracy {result.linear.accuracy:.2%}, {told}"))
    if result.knn is not None:
        rows.append(
            (f"{result.knn.neighbours} neighbours", f"test accuracy {result.knn.accuracy:.2%}")
        )
    if result.dense is not None:
        places = " x ".join(map(str, result.dense.map))
        told = f"pixels {result.dense.pixel_accuracy:.2%}, map {places}"
        rows.append(("dense probe", f"test mIoU {result.dense.miou:.2%}, {told}"))
    output.show(table(("", ""), rows))
    output.result(result.to_dict())
    output.next("train", "--teacher", checkpoint)
