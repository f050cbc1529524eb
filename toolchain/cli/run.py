"""`vitc run`: images or an array through an artefact."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeAlias

import typer

from vitc.cli.claims import claimed
from vitc.cli.options import (
    AllowExternalData,
    Background,
    DeviceName,
    EntryName,
    Force,
    JsonTo,
    Pin,
    Threads,
    existing,
)
from vitc.cli.output import Output
from vitc.cli.tables import Lines, table
from vitc.errors import VitcError

if TYPE_CHECKING:
    from vitc.devices.prediction import Prediction, PredictionStream
    from vitc.outputs import FileOutput

__all__ = ["run"]

_FEW: Final = 16
_SHOWN: Final = 5
_WIDEST: Final = 60
_COLUMNS: Final = ("input", "class", ">probability", ">logit")


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
            metavar="INPUT...",
            help="Images and folders of images, or one .npy [B,3,H,W] fp32, already normalised; "
            "NAME=FILE.npy for each input of a network that has others.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="LOGITS.npy",
            help="Write the logits; of a network with other outputs, all as .npz.",
        ),
    ] = None,
    entry: EntryName = None,
    topk: Annotated[
        int | None,
        typer.Option(
            "--topk",
            min=1,
            help=f"Classes to show an image. By default 5, of more than {_FEW} images 1 a line; "
            "5 in JSON. Of a detector or a segmentation network: boxes or classes, all by default.",
        ),
    ] = None,
    score: Annotated[
        float | None,
        typer.Option("--score", min=0, max=1, help="Least score of a box; 0.2 by default."),
    ] = None,
    overlay: Annotated[
        Path | None,
        typer.Option(
            "--save-overlay",
            metavar="OUT.png",
            help="Draw boxes, or classes of pixels, on the picture.",
        ),
    ] = None,
    background: Background = None,
    threads: Threads = 1,
    pin: Pin = False,
    device: DeviceName = "local",
    allow_external_data: AllowExternalData = False,
    force: Force = False,
    json_to: JsonTo = None,
) -> None:
    """Classify images, find boxes or classes of pixels in them, or run an array.

    Any number of images: they are read, run and shown a part at a time.
    """
    output = Output(json_to, force=force)
    logits_file = None if out is None else claimed(out, force=force)
    overlay_file = None if overlay is None else claimed(overlay, force=force)
    from vitc.devices.named import needs_names
    from vitc.devices.source import refuse_external_data

    if needs_names(model, entry):
        refuse_external_data(model, allow_external_data)
        _refuse(
            model,
            "takes pictures",
            {
                "--topk": topk,
                "--background": background,
                "--score": score,
                "--save-overlay": overlay,
            },
        )
        _run_named(
            model, inputs, logits_file, output, entry=entry, device=device, threads=threads, pin=pin
        )
        return
    from vitc.devices.picture_network import PredictOptions, open_network
    from vitc.devices.prediction import classified, write_logits
    from vitc.models.architectures.tasks import TaskConfig
    from vitc.models.picture import parse_colour
    from vitc.models.picture_files import counted

    options = PredictOptions(
        threads=threads,
        device=device,
        allow_external_data=allow_external_data,
        background=None if background is None else parse_colour(background),
        pin=pin,
    )
    network = open_network(model, inputs, options)
    if isinstance(network.config, TaskConfig):
        from vitc.cli.run_task import run_task

        used = run_task(
            network, model, output, topk=topk, score=score, maps=logits_file, overlay=overlay_file
        )
        if used < threads:
            output.note(_capped(threads, used))
        return
    _refuse(model, "gives maps of a picture", {"--score": score, "--save-overlay": overlay})
    with ExitStack() as stack:
        say = stack.enter_context(output.working(f"running {model}"))
        streamed = classified(network)
        if streamed.left:
            output.note(f"left out: {counted(streamed.left)}")
        total = len(streamed.names)
        parts: Iterable[Prediction] = streamed.parts
        if logits_file is not None:
            file = stack.enter_context(logits_file.aside())
            parts = write_logits(parts, total, streamed.classes, file)
        add = stack.enter_context(output.result_list("inputs"))
        show = _few(output) if total <= _FEW else _many(output, streamed)
        done = 0
        for part in parts:
            if not done and part.threads < threads:
                output.note(_capped(threads, part.threads))
            show(part, topk or (_SHOWN if total <= _FEW else 1), done + len(part.names) == total)
            add(part.entries(topk or _SHOWN))
            done += len(part.names)
            say(f"running {model}: {done} of {total} images")


def _refuse(model: Path, what: str, options: Mapping[str, object]) -> None:
    """Refuse options that are for a network of which `model` is none."""
    for option, given in options.items():
        if given is not None:
            raise VitcError(
                f"{option} is for a network that {what}, and {model} is none.",
                f"Leave {option} away.",
            )


def _run_named(
    model: Path,
    inputs: list[Path],
    file: FileOutput | None,
    output: Output,
    *,
    entry: str | None,
    device: str,
    threads: int,
    pin: bool,
) -> None:
    """Run a network of other ports, and say what came out."""
    import numpy as np

    from vitc.devices.named import run_named

    with ExitStack() as stack:
        stack.enter_context(output.working(f"running {model}"))
        done = run_named(model, inputs, entry=entry, device=device, threads=threads, pin=pin)
        if done.threads is not None and done.threads < threads:
            output.note(_capped(threads, done.threads))
        if file is not None:
            with stack.enter_context(file.aside()).open("wb") as target:
                np.savez(target, **done.outputs)  # type: ignore[arg-type]
    rows = [
        (name, str(array.dtype), " x ".join(map(str, array.shape)))
        for name, array in done.outputs.items()
    ]
    output.show(table(("output", "type", "shape"), rows))
    listed = [
        {"name": name, "dtype": str(array.dtype), "shape": list(array.shape)}
        for name, array in done.outputs.items()
    ]
    output.result({"outputs": listed})


def _capped(asked: int, used: int) -> str:
    return f"{asked} threads asked for, {used} used, as many as there are processors"


_Show: TypeAlias = "Callable[[Prediction, int, bool], None]"


def _few(output: Output) -> _Show:
    """Show all rows as one table when the last ones have come."""
    rows: list[tuple[str, ...]] = []

    def show(part: Prediction, topk: int, last: bool) -> None:
        rows.extend(_rows(part, topk))
        if last:
            output.show(table(_COLUMNS, rows))

    return show


def _many(output: Output, streamed: PredictionStream) -> _Show:
    """Show rows as they come."""
    names = min(max(map(len, streamed.names)), _WIDEST)
    labels = max(map(len, streamed.labels or ("",)))
    lines = Lines(_COLUMNS, (names, min(labels, _WIDEST), 11, 9))
    output.copyable(lines.heading)

    def show(part: Prediction, topk: int, _: bool) -> None:
        output.copyable("\n".join(lines.row(row) for row in _rows(part, topk)))

    return show


def _rows(part: Prediction, topk: int) -> Iterator[tuple[str, ...]]:
    for index, name in enumerate(part.names):
        for rank, entry in enumerate(part.top(index, topk)):
            first = name if rank == 0 else ""
            yield first, entry.label, f"{entry.probability:.3f}", f"{entry.logit:.5g}"
