"""`vitc new`: random, trained-like weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vitc import names
from vitc.cli.options import Force, ImageSize, Merge, MLPRatio, Norm, Seed
from vitc.cli.output import Output
from vitc.outputs import check_file

__all__ = ["new"]


def new(
    preset: Annotated[
        str,
        typer.Argument(
            metavar="PRESET",
            help="See `vitc models`.",
            callback=names.PRESETS.check,
            autocompletion=names.PRESETS.complete,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="M.safetensors", help="File to write; by default PRESET.safetensors."
        ),
    ] = None,
    si: Annotated[
        bool | None, typer.Option("--si/--no-si", help="With or without spatial interaction.")
    ] = None,
    mlp_ratio: MLPRatio = None,
    image_size: ImageSize = None,
    classes: Annotated[int | None, typer.Option("--classes", min=1, help="Logits.")] = None,
    depth: Annotated[
        int | None, typer.Option("--depth", min=1, help="Blocks (of each stage).")
    ] = None,
    scheme: Annotated[
        str,
        typer.Option(
            "--scheme",
            help="How signs are made: bibert, recu, bit.",
            callback=names.SCHEMES.check,
            autocompletion=names.SCHEMES.complete,
        ),
    ] = "bibert",
    elastic: Annotated[
        bool, typer.Option("--elastic", help="Attention masks as BiT's own; with --scheme bit.")
    ] = False,
    norm: Norm = None,
    merge: Merge = None,
    seed: Seed = 0,
    force: Force = False,
) -> None:
    """Make a network with random weights that behave like trained ones.

    Bench it before you train it.
    """
    out = out or Path(f"{preset}.safetensors")
    check_file(out, force=force)
    from vitc import api
    from vitc.models.checkpoint import save

    output = Output()
    with output.working(f"making {preset}"):
        model = api.new(
            preset,
            si=si,
            mlp_ratio=mlp_ratio,
            image_size=image_size,
            classes=classes,
            depth=depth,
            scheme=scheme,
            elastic=elastic,
            norm=norm,
            merge=merge,
            seed=seed,
        )
        save(model, out, force=force)
    output.note(f"wrote {out}")
    output.next("export", out)
