"""`vitc pretrain`: a full-precision twin from pictures without labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vitc import names
from vitc.cli.options import (
    Background,
    BatchSize,
    Force,
    JsonTo,
    MixedPrecision,
    Resume,
    Seed,
    TrainingThreads,
    existing,
    known_data,
)
from vitc.cli.output import Output
from vitc.cli.run_progress import run_shown

if TYPE_CHECKING:
    from vitc.training import EpochReport

__all__ = ["pretrain"]


def pretrain(
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="TWIN.safetensors",
            help="The twin after each epoch; by default PRESET-twin.safetensors.",
        ),
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            "--method",
            help="dmjd or mae.",
            callback=names.PRETRAININGS.check,
            autocompletion=names.PRETRAININGS.complete,
        ),
    ] = "dmjd",
    preset: Annotated[
        str,
        typer.Option(
            "--preset",
            help="Whose twin; see `vitc models`.",
            callback=names.PRESETS.check,
            autocompletion=names.PRESETS.complete,
        ),
    ] = "micro",
    data: Annotated[
        str,
        typer.Option(
            "--data",
            metavar="digits|DIR",
            help="Digits, or a folder of pictures, with or without classes.",
            callback=known_data,
        ),
    ] = "digits",
    every: Annotated[
        bool,
        typer.Option(
            "--all", help="Take those pictures of class folders too that networks are judged by."
        ),
    ] = False,
    skip_broken: Annotated[
        bool, typer.Option("--skip-broken", help="Leave out pictures that cannot be read.")
    ] = False,
    background: Background = None,
    epochs: Annotated[int, typer.Option("--epochs", min=1, help="Passes over the data.")] = 100,
    batch_size: BatchSize = 64,
    views: Annotated[
        int | None, typer.Option("--views", min=1, help="Of an image in a step; dmjd 2, mae 1.")
    ] = None,
    corruption: Annotated[
        float | None,
        typer.Option("--corruption", help="Share of a view that is masked; dmjd .6, mae .75."),
    ] = None,
    prediction: Annotated[
        float | None,
        typer.Option("--prediction", help="Share of an image that two views mask together; 1."),
    ] = None,
    masking: Annotated[
        str | None,
        typer.Option(
            "--masking",
            help="block (2 x 2 tokens) or random; dmjd block, mae random.",
            callback=names.optional(names.MASKINGS),
            autocompletion=names.MASKINGS.complete,
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            help="hog, pixels or teacher; dmjd hog, mae pixels.",
            callback=names.optional(names.PREDICTED),
            autocompletion=names.PREDICTED.complete,
        ),
    ] = None,
    teacher: Annotated[
        Path | None,
        typer.Option(
            "--teacher",
            metavar="CKPT|DIR",
            help="Whose features are the target, with --target teacher.",
            callback=existing("checkpoint", "Name a full-precision network."),
        ),
    ] = None,
    theta: Annotated[
        float | None,
        typer.Option("--theta", min=0, help="Weight of the visible tokens' loss; dmjd 1, mae 0."),
    ] = None,
    depth: Annotated[int | None, typer.Option("--depth", min=1, help="Blocks.")] = None,
    decoder_depth: Annotated[
        int, typer.Option("--decoder-depth", min=1, help="Blocks that rebuild masked tokens.")
    ] = 1,
    decoder_width: Annotated[
        int | None,
        typer.Option(
            "--decoder-width", min=4, help="Channels of both branches; half of the twin's."
        ),
    ] = None,
    learning_rate: Annotated[
        float,
        typer.Option(
            "--learning-rate",
            min=0,
            help="For 256 images a step; times prediction / corruption, as the method has it.",
        ),
    ] = 6e-4,
    warmup_epochs: Annotated[
        float | None,
        typer.Option("--warmup-epochs", min=0, help="In which the rate rises; a twentieth of all."),
    ] = None,
    weight_decay: Annotated[float, typer.Option("--weight-decay", min=0, help="Of AdamW.")] = 0.05,
    pictures_every: Annotated[
        int,
        typer.Option(
            "--pictures-every", min=1, help="Epochs from one picture of the views to the next."
        ),
    ] = 10,
    mixed_precision: MixedPrecision = "no",
    threads: TrainingThreads = None,
    resume: Resume = False,
    seed: Seed = 0,
    force: Force = False,
    json_to: JsonTo = None,
) -> None:
    """Pre-train a full-precision twin without labels, by masked views of pictures.

    Beside the twin lie the last state, a curve of the losses, a history, and a picture of crops,
    masks and, of pixels, what is rebuilt. Use it by `vitc train --start TWIN --teacher TWIN`, and
    judge it by `vitc probe TWIN`.
    """
    from vitc.training.run_outputs import check_outputs, is_main

    output = Output(json_to, force=force, silent=not is_main())
    from vitc.models.picture import parse_colour
    from vitc.training.dmjd.options import PretrainOptions

    options = PretrainOptions(
        out=out or Path(f"{preset}-twin.safetensors"),
        method=method,
        data=data,
        every=every,
        skip_broken=skip_broken,
        background=None if background is None else parse_colour(background),
        preset=preset,
        depth=depth,
        views=views,
        corruption=corruption,
        prediction=prediction,
        blocks=None if masking is None else masking == "block",
        target=target,
        teacher=teacher,
        theta=theta,
        decoder_depth=decoder_depth,
        decoder_width=decoder_width,
        base_rate=learning_rate,
        warmup_epochs=warmup_epochs,
        weight_decay=weight_decay,
        pictures_every=pictures_every,
        epochs=epochs,
        batch_size=batch_size,
        mixed_precision=mixed_precision,
        threads=threads,
        seed=seed,
        resume=resume,
        force=force,
    )
    check_outputs(options)
    count = options.chosen.views

    def describe(report: EpochReport) -> str:
        parts = ", ".join(f"{name} {value:.4f}" for name, value in report.parts.items())
        return (
            f"{parts}, ETE {report.epoch * count} of {report.epochs * count}, "
            f"{report.images_per_second:.0f} images/s"
        )

    from vitc.training.dmjd.run import pretrain as run_pretraining

    result = run_shown(output, options, describe, run_pretraining)
    losses = ", ".join(f"{name} tokens {value:.4f}" for name, value in result.parts.items())
    output.show(
        f"loss of {losses}; {result.images} pictures, {epochs} epochs, "
        f"{result.effective_epochs} effective; {result.seconds:.0f} s"
    )
    output.note(f"wrote {result.checkpoint}, {result.curve}, {result.shown}, {result.history_file}")
    output.result(
        {
            "checkpoint": str(result.checkpoint),
            "images": result.images,
            "effective_epochs": result.effective_epochs,
            "loss": result.loss,
            "parts": result.parts,
            "seconds": result.seconds,
            "images_per_second": result.history[-1].images_per_second,
            "curve": str(result.curve),
            "picture": str(result.shown),
            "history": str(result.history_file),
        }
    )
    output.next("probe", result.checkpoint)
