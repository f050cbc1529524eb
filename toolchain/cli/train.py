"""`vitc train`: a network from labelled images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vitc import names
from vitc.cli.options import (
    Background,
    BatchSize,
    Force,
    ImageSize,
    JsonTo,
    Merge,
    MixedPrecision,
    MLPRatio,
    Norm,
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

__all__ = ["describe", "train"]

_CHECKPOINT = existing("checkpoint", "Make one with `vitc new` or `vitc train`.")


def describe(report: EpochReport) -> str:
    """One epoch in a few words, for a progress bar."""
    parts = ", ".join(f"{name} {value:.3f}" for name, value in report.parts.items())
    return (
        f"{report.stage + ': ' if report.stage else ''}loss {report.loss:.3f}"
        f"{f' ({parts})' if parts else ''}, validation accuracy {report.validation_accuracy:.2%}, "
        f"{report.images_per_second:.0f} images/s"
    )


def train(
    context: typer.Context,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="M.safetensors",
            help="The best checkpoint; by default PRESET.safetensors, PRESET-twin or PRESET-TASK.",
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            "--task",
            metavar="detection|segmentation",
            help="Boxes, or classes of pixels, on the preset's trunk; else classes of images.",
            callback=names.optional(names.TASKS),
            autocompletion=names.TASKS.complete,
        ),
    ] = None,
    preset: Annotated[
        str,
        typer.Option(
            "--preset",
            help="See `vitc models`.",
            callback=names.PRESETS.check,
            autocompletion=names.PRESETS.complete,
        ),
    ] = "micro",
    data: Annotated[
        str,
        typer.Option(
            "--data",
            metavar="digits|DIR",
            help="Digits, or class folders. With --task: digits, digits-marked, or a folder "
            "of COCO JSON or of masks.",
            callback=known_data,
        ),
    ] = "digits",
    background: Background = None,
    epochs: Annotated[int, typer.Option("--epochs", min=1, help="Passes over the data.")] = 40,
    batch_size: BatchSize = 64,
    learning_rate: Annotated[
        float, typer.Option("--learning-rate", min=0, help="Peak of the schedule.")
    ] = 5e-3,
    warmup_epochs: Annotated[
        int, typer.Option("--warmup-epochs", min=0, help="Epochs in which the rate rises.")
    ] = 3,
    weight_decay: Annotated[
        float, typer.Option("--weight-decay", min=0, help="Of AdamW, on matrices only.")
    ] = 0.05,
    augment: Annotated[
        bool,
        typer.Option(
            "--augment/--no-augment",
            help="Small shifts, and mirror images unless the data are digits.",
        ),
    ] = True,
    scale: Annotated[
        tuple[float, float] | None,
        typer.Option("--scale", help="Random resized crops: smallest, largest share of the area."),
    ] = None,
    hflip: Annotated[
        float, typer.Option("--hflip", min=0, max=1, help="Probability of a mirror image.")
    ] = 0.0,
    reprob: Annotated[
        float, typer.Option("--reprob", min=0, max=1, help="Probability of random erasing.")
    ] = 0.0,
    mixup: Annotated[
        float, typer.Option("--mixup", min=0, help="Alpha of mixup; 0.8 is usual, 0 is none.")
    ] = 0.0,
    cutmix: Annotated[
        float, typer.Option("--cutmix", min=0, help="Alpha of CutMix; 1 is usual, 0 is none.")
    ] = 0.0,
    mixed_precision: MixedPrecision = "no",
    threads: TrainingThreads = None,
    depth: Annotated[int | None, typer.Option("--depth", min=1, help="Blocks.")] = None,
    si: Annotated[
        bool | None, typer.Option("--si/--no-si", help="With or without spatial interaction.")
    ] = None,
    mlp_ratio: MLPRatio = None,
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
    image_size: ImageSize = None,
    full_precision: Annotated[
        bool,
        typer.Option("--full-precision", help="Train the preset's full-precision twin instead."),
    ] = False,
    weight_bits: Annotated[
        int, typer.Option("--weight-bits", help="32 for the first of two steps (32W1A), else 1.")
    ] = 1,
    start: Annotated[
        Path | None,
        typer.Option(
            "--start", metavar="CKPT", help="Begin from these weights.", callback=_CHECKPOINT
        ),
    ] = None,
    teacher: Annotated[
        Path | None,
        typer.Option(
            "--teacher",
            metavar="CKPT|DIR",
            help="Distil from this network: vitc's own, or of Hugging Face, timm, PVT's authors.",
            callback=_CHECKPOINT,
        ),
    ] = None,
    layer_decay: Annotated[
        float | None,
        typer.Option(
            "--layer-decay",
            help="Full precision: learning rate of a layer by that of the next; "
            ".65 after `vitc pretrain`, else 1.",
        ),
    ] = None,
    drop_path: Annotated[
        float | None,
        typer.Option(
            "--drop-path",
            help="Full precision: how often the last block is left out; .1 after `vitc pretrain`, "
            "else 0.",
        ),
    ] = None,
    recipe: Annotated[
        str,
        typer.Option(
            "--recipe",
            metavar="joint|decoupled",
            help="All at once, or first the MLP branch by the teacher's, then SI beside it.",
            callback=names.RECIPES.check,
            autocompletion=names.RECIPES.complete,
        ),
    ] = "joint",
    stage_epochs: Annotated[
        tuple[int, int, int] | None,
        typer.Option(
            "--stage-epochs",
            help="Decoupled: epochs with 32-bit weights, 1-bit weights, SI; default 1/4, 1/4, 1/2.",
        ),
    ] = None,
    mlp_weight: Annotated[
        float | None,
        typer.Option("--mlp-weight", help="Decoupled: of the MLP outputs' loss, 0.1 by default."),
    ] = None,
    mlp_rate: Annotated[
        float | None,
        typer.Option(
            "--mlp-rate",
            help="Decoupled: the MLP branch's share of the learning rate beside SI, 0.1 by "
            "default; 0 freezes it.",
        ),
    ] = None,
    blocks: Annotated[  # noqa: ARG001 - this and the next three are read by `train_task`
        bool,
        typer.Option(
            "--blocks/--no-blocks",
            help="With --task: a trunk with its blocks, or a control without any.",
        ),
    ] = True,
    tower: Annotated[  # noqa: ARG001
        str,
        typer.Option(
            "--tower",
            metavar="dense|depthwise|pointwise",
            help="With --task: inner layers of the head.",
            callback=names.TOWERS.check,
            autocompletion=names.TOWERS.complete,
        ),
    ] = "dense",
    binary_head: Annotated[  # noqa: ARG001
        bool,
        typer.Option("--binary-head", help="With --task: binary 1 x 1 layers in the head."),
    ] = False,
    void: Annotated[  # noqa: ARG001
        int | None,
        typer.Option(
            "--void",
            min=0,
            max=255,
            help="With --task segmentation: value of mask pixels that are no class, beside 255.",
        ),
    ] = None,
    resume: Resume = False,
    seed: Seed = 0,
    force: Force = False,
    json_to: JsonTo = None,
) -> None:
    """Train a network; the best checkpoint, the last state and a curve lie beside each other.

    The best epoch is chosen by validation images: a tenth of the training ones,
    or those of val/ where DIR has train/, val/ and test/.
    The test images are looked at once, to judge the best checkpoint.
    """
    from vitc.cli.train_task import refuse_task_options, train_task

    if task is not None:
        train_task(context)
        return
    refuse_task_options(context)
    from vitc.training.run_outputs import check_outputs, is_main

    output = Output(json_to, force=force, silent=not is_main())
    from vitc.models.picture import parse_colour
    from vitc.training.options import TrainOptions

    options = TrainOptions(
        out=out
        or Path(f"{preset}-twin.safetensors" if full_precision else f"{preset}.safetensors"),
        data=data,
        background=None if background is None else parse_colour(background),
        preset=preset,
        depth=depth,
        si=si,
        mlp_ratio=mlp_ratio,
        scheme=scheme,
        elastic=elastic,
        norm=norm,
        merge=merge,
        image_size=image_size,
        full_precision=full_precision,
        weight_bits=weight_bits,
        start=start,
        teacher=teacher,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        warmup_epochs=warmup_epochs,
        weight_decay=weight_decay,
        augment=augment,
        crop_scale=scale,
        hflip=hflip,
        erasing=reprob,
        mixup=mixup,
        cutmix=cutmix,
        layer_decay=layer_decay,
        drop_path=drop_path,
        recipe=recipe,
        stage_epochs=stage_epochs,
        mlp_weight=mlp_weight,
        mlp_rate=mlp_rate,
        mixed_precision=mixed_precision,
        threads=threads,
        seed=seed,
        resume=resume,
        force=force,
    )
    check_outputs(options)
    from vitc.training import train as run_training

    result = run_shown(output, options, describe, run_training)
    output.show(
        f"test accuracy {result.test_accuracy:.2%}, of epoch {result.best_epoch}, "
        f"chosen by its validation accuracy {result.validation_accuracy:.2%}; "
        f"{result.seconds:.0f} s"
    )
    output.note(f"wrote {result.checkpoint}, {result.curve}, {result.history_file}")
    output.result(
        {
            "checkpoint": str(result.checkpoint),
            "best_epoch": result.best_epoch,
            "validation_accuracy": result.validation_accuracy,
            "test_accuracy": result.test_accuracy,
            "seconds": result.seconds,
            "curve": str(result.curve),
            "history": str(result.history_file),
        }
    )
    if full_precision:
        output.next("train", "--teacher", result.checkpoint)
    else:
        output.next("export", result.checkpoint)
