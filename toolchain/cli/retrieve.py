"""`vitc retrieve`: towers that find pictures by words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from vitc import names
from vitc.cli.command import add_command
from vitc.cli.options import (
    BatchSize,
    Force,
    ImageSize,
    JsonTo,
    MixedPrecision,
    Resume,
    Seed,
    TargetName,
    Threads,
    TrainingThreads,
    existing,
)
from vitc.cli.output import Output
from vitc.cli.run_progress import run_shown
from vitc.cli.tables import table
from vitc.extras import need

if TYPE_CHECKING:
    from vitc.training import EpochReport
    from vitc.training.retrieval.options import RetrievalResult

__all__ = ["app"]

app = typer.Typer(
    name="retrieve",
    help="Train towers that find pictures by words, and shrink them to fewer interactions.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def _known_captions(data: str) -> str:
    if data == names.GLYPHS or Path(data).is_dir():
        return data
    raise names.absent(
        Path(data),
        "data folder",
        f"Name a folder of pictures with captions (docs/retrieval.md), or {names.GLYPHS!r}.",
    )


_Out: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="M.safetensors",
        help="The best epoch's towers; by default named after the mode, or TEACHER-TO.safetensors, "
        "in this folder.",
    ),
]
_Data: TypeAlias = Annotated[
    str,
    typer.Option(
        "--data",
        metavar="glyphs|DIR",
        help="Drawn symbols, or a folder of pictures with captions (docs/retrieval.md).",
        callback=_known_captions,
    ),
]
_Start: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--start",
        metavar="TWIN",
        help="Full-precision twin that the image tower begins with; see `vitc pretrain`.",
        callback=existing("checkpoint", "Make one with `vitc pretrain --out TWIN.safetensors`."),
    ),
]
_FloatEpochs: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--float-epochs",
        min=0,
        help="Of --epochs, those of the full-precision twin before it is binarized; half.",
    ),
]
_FreshEpochs: TypeAlias = Annotated[
    int,
    typer.Option(
        "--float-epochs",
        min=0,
        help="Of --epochs, those of a full-precision twin with fresh encoders before it is "
        "binarized; with none the student begins with the teacher's encoders.",
    ),
]
_Rate: TypeAlias = Annotated[
    float, typer.Option("--learning-rate", min=0, help="Peak of the schedule.")
]
_PackedRate: TypeAlias = Annotated[
    float,
    typer.Option("--packed-rate", min=0, help="The same of binarized towers that follow a twin."),
]
_Warmup: TypeAlias = Annotated[
    float, typer.Option("--warmup-epochs", min=0, help="In which the rate rises, of each stage.")
]
_Decay: TypeAlias = Annotated[float, typer.Option("--weight-decay", min=0, help="Of AdamW.")]
_Epochs: TypeAlias = Annotated[
    int, typer.Option("--epochs", min=1, help="Passes over the data, all stages together.")
]


def train(
    mode: Annotated[
        str,
        typer.Option(
            "--mode",
            metavar="base|inflate|fast",
            help="All tokens meet; codes beside them too; or the first of each side alone.",
            callback=names.RETRIEVAL_MODES.check,
            autocompletion=names.RETRIEVAL_MODES.complete,
        ),
    ] = "base",
    data: _Data = names.GLYPHS,
    preset: Annotated[
        str,
        typer.Option(
            "--preset",
            help="Backbone of the image tower; see `vitc models`.",
            callback=names.PRESETS.check,
            autocompletion=names.PRESETS.complete,
        ),
    ] = "micro",
    full_precision: Annotated[
        bool, typer.Option("--full-precision", help="Take the backbone's twin, without bits.")
    ] = False,
    floats: Annotated[
        bool, typer.Option("--floats", help="Vectors are floats, not signs; no index holds them.")
    ] = False,
    image_size: ImageSize = None,
    depth: Annotated[int | None, typer.Option("--depth", min=1, help="Blocks.")] = None,
    si: Annotated[
        bool | None, typer.Option("--si/--no-si", help="The spatial interaction branch.")
    ] = None,
    scheme: Annotated[
        str,
        typer.Option(
            "--scheme",
            help="Of binarization.",
            callback=names.SCHEMES.check,
            autocompletion=names.SCHEMES.complete,
        ),
    ] = "bibert",
    width: Annotated[int, typer.Option("--width", min=1, help="Values of a vector.")] = 256,
    codes: Annotated[
        int | None, typer.Option("--codes", min=0, help="Of each side, with --mode inflate.")
    ] = None,
    length: Annotated[
        int | None,
        typer.Option("--length", min=1, help="Word pieces of a text; what most captions take."),
    ] = None,
    vocabulary: Annotated[
        int, typer.Option("--vocabulary", min=16, help="The most word pieces.")
    ] = 2048,
    text_width: Annotated[
        int, typer.Option("--text-width", min=4, help="Channels of the text tower.")
    ] = 128,
    text_layers: Annotated[
        int, typer.Option("--text-layers", min=1, help="Layers of the text tower.")
    ] = 2,
    contrast: Annotated[
        float,
        typer.Option(
            "--contrast",
            min=0,
            help="Scale of a cross entropy beside the ranking loss; 0 for the ranking loss alone.",
        ),
    ] = 16.0,
    start: _Start = None,
    epochs: _Epochs = 16,
    float_epochs: _FloatEpochs = None,
    batch_size: BatchSize = 64,
    learning_rate: _Rate = 2e-3,
    packed_rate: _PackedRate = 5e-3,
    warmup_epochs: _Warmup = 1.0,
    weight_decay: _Decay = 0.01,
    mixed_precision: MixedPrecision = "no",
    threads: TrainingThreads = None,
    resume: Resume = False,
    seed: Seed = 0,
    out: _Out = None,
    force: Force = False,
    json_to: JsonTo = None,
) -> None:
    """Train an image tower and a text tower: what belongs together scores more.

    Recall both ways is told of each epoch, on pictures kept for validation; the best epoch is
    judged by test pictures once, at the end.
    """
    need("`vitc retrieve`", "train")
    from vitc.training.run_outputs import check_outputs, is_main

    output = Output(json_to, force=force, silent=not is_main())
    from vitc.training.retrieval.options import RetrievalOptions

    options = RetrievalOptions(
        out=out or Path(f"{mode}.safetensors"),
        mode=mode,
        data=data,
        preset=preset,
        full_precision=full_precision,
        floats=floats,
        image_size=image_size,
        depth=depth,
        si=si,
        scheme=scheme,
        width=width,
        codes=codes,
        length=length,
        vocabulary=vocabulary,
        text_width=text_width,
        text_layers=text_layers,
        contrast=contrast,
        start=start,
        epochs=epochs,
        float_epochs=float_epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        packed_rate=packed_rate,
        warmup_epochs=warmup_epochs,
        weight_decay=weight_decay,
        mixed_precision=mixed_precision,
        threads=threads,
        seed=seed,
        resume=resume,
        force=force,
    )

    check_outputs(options)
    from vitc.training.retrieval.run import train as run_training

    _tell(output, run_shown(output, options, _described, run_training))


def shrink(
    teacher: Annotated[
        Path,
        typer.Option(
            "--teacher",
            metavar="CKPT",
            help="Whose scores are learnt: inflated towers, or those shrunken to base.",
            callback=existing(
                "checkpoint", "Make one with `vitc retrieve train --mode inflate --out I`."
            ),
        ),
    ],
    to: Annotated[str, typer.Option("--to", metavar="base|fast", help="What remains.")],
    data: _Data = names.GLYPHS,
    start: _Start = None,
    epochs: _Epochs = 5,
    float_epochs: _FreshEpochs = 0,
    batch_size: BatchSize = 64,
    learning_rate: _Rate = 2e-3,
    packed_rate: _PackedRate = 5e-3,
    warmup_epochs: _Warmup = 1.0,
    weight_decay: _Decay = 0.01,
    mixed_precision: MixedPrecision = "no",
    threads: TrainingThreads = None,
    resume: Resume = False,
    seed: Seed = 0,
    out: _Out = None,
    force: Force = False,
    json_to: JsonTo = None,
) -> None:
    """Distil the scores of one pair of towers to another with fewer interactions.

    The new encoders begin with the teacher's; words, positions and patches are its own, and stay.
    """
    need("`vitc retrieve`", "train")
    from vitc.training.run_outputs import check_outputs, is_main

    output = Output(json_to, force=force, silent=not is_main())
    from vitc.training.retrieval.options import ShrinkOptions

    options = ShrinkOptions(
        out=out or Path(f"{teacher.stem}-{to}.safetensors"),
        teacher=teacher,
        to=to,
        data=data,
        start=start,
        epochs=epochs,
        float_epochs=float_epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        packed_rate=packed_rate,
        warmup_epochs=warmup_epochs,
        weight_decay=weight_decay,
        mixed_precision=mixed_precision,
        threads=threads,
        seed=seed,
        resume=resume,
        force=force,
    )

    check_outputs(options)
    from vitc.training.retrieval.run import shrink as run_shrinking

    _tell(output, run_shown(output, options, _described, run_shrinking))


def bench(
    images: Annotated[int, typer.Option("--images", min=1, help="Random ones.")] = 1_000_000,
    width: Annotated[int, typer.Option("--width", min=8, help="Bits of a vector.")] = 256,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Queries at once.")] = 32,
    top: Annotated[int, typer.Option("--top", min=1, help="Images a query finds.")] = 10,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Timed searches.")] = 7,
    target: TargetName = "native",
    threads: Threads = 1,
    json_to: JsonTo = None,
) -> None:
    """Search random vectors, one an image, for one query and for a batch.

    Beside vitc stand numpy, and faiss (IndexBinaryFlat) and usearch (exact) where they are
    installed. All scores are compared with their definition first.
    """
    need("`vitc retrieve bench`", "compile")
    output = Output(json_to)
    from vitc.bench.searching import SearchBenchOptions, bench_searches
    from vitc.devices.machine import machine

    options = SearchBenchOptions(
        images=images,
        width=width,
        batch=batch,
        top=top,
        repeats=repeats,
        target=target,
        threads=threads,
    )
    with output.working("drawing vectors") as say:
        times = bench_searches(options, say)

    def shown(pair: tuple[float, float] | None) -> str:
        return "" if pair is None else f"{pair[0]:.2f} / {pair[1]:.2f}"

    rows = [(each.name, shown(each.single_ms), shown(each.batch_ms), each.note) for each in times]
    output.show(table(("search", ">one query, ms", f">of {batch}, ms a query", "note"), rows))
    facts = machine()
    load = "unknown" if facts.load is None else f"{facts.load:.1f}"
    output.show(
        f"fastest / median of {repeats}; {images} x {width} bits, the best {top}; target {target}; "
        f"threads: {threads}; {facts.cpu}, {facts.cores} cores, load {load}"
    )
    output.result(
        {
            "images": images,
            "width": width,
            "batch": batch,
            "top": top,
            "repeats": repeats,
            "target": target,
            "threads": threads,
            "machine": asdict(facts),
            "times": [asdict(each) for each in times],
        }
    )


def _tell(output: Output, result: RetrievalResult) -> None:
    output.show(
        f"recall on {result.test_images} test pictures with {result.test_texts} captions: "
        f"{_recalls(result.test)}; chance {_recalls(result.chance)}; epoch {result.best_epoch}; "
        f"{result.seconds:.0f} s"
    )
    output.note(f"wrote {result.checkpoint}, {result.curve}, {result.history_file}")
    output.result(
        {
            "checkpoint": str(result.checkpoint),
            "best_epoch": result.best_epoch,
            "validation": dict(result.validation),
            "test": dict(result.test),
            "chance": dict(result.chance),
            "test_images": result.test_images,
            "test_texts": result.test_texts,
            "seconds": result.seconds,
            "curve": str(result.curve),
            "history": str(result.history_file),
        }
    )
    output.next("export", result.checkpoint)


def _described(report: EpochReport) -> str:
    parts = "".join(f", {name} {value:.4f}" for name, value in report.parts.items())
    stage = f"{report.stage}, " if report.stage else ""
    return (
        f"{stage}loss {report.loss:.4g}{parts}, recall {_recalls(report.measures)}, "
        f"{report.images_per_second:.0f} images/s"
    )


def _recalls(measures: Mapping[str, float]) -> str:
    """Recall at 1, 5 and 10, by a text and by an image."""
    ways = (("text_to_image", "by text"), ("image_to_text", "by image"))
    return ", ".join(
        f"{said} " + "/".join(f"{100 * measures[f'{way}_r{k}']:.1f}" for k in (1, 5, 10)) + " %"
        for way, said in ways
    )


add_command(app, "retrieve train", train, short_help="Train towers by the ranking loss.")
add_command(
    app, "retrieve shrink", shrink, short_help="Shrink towers by the scores of larger ones."
)
add_command(
    app, "retrieve bench", bench, short_help="Time a search of an index, beside other libraries."
)
