"""`vitc index`: photos, encoded once, in one file that a search reads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vitc.cli.command import add_command
from vitc.cli.options import Force, JsonTo, Threads, existing
from vitc.cli.output import Output, megabytes
from vitc.extras import need

__all__ = ["app"]

app = typer.Typer(
    name="index",
    help="Encode photos once, for `vitc search`.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def build(
    photos: Annotated[
        Path,
        typer.Argument(
            metavar="PHOTOS",
            help="A folder, photos at any depth.",
            callback=existing("folder", "Name a folder of photos."),
        ),
    ],
    model: Annotated[
        Path,
        typer.Option(
            "--model",
            metavar="DIR|CKPT",
            help="Towers: an artefact folder, or a checkpoint of `vitc retrieve`.",
            callback=existing("model", "Train one with `vitc retrieve train`."),
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="PHOTOS.vidx",
            help="The index; by default named after the folder, in this one.",
        ),
    ] = None,
    threads: Threads = 1,
    force: Force = False,
    json_to: JsonTo = None,
) -> None:
    """Encode all photos below a folder.

    An index that is there is brought up to date: new and changed photos are encoded, those that are
    gone are left out. An interrupted build goes on where it was.
    """
    output = Output(json_to, force=force)
    from vitc.retrieval.building import build_index
    from vitc.retrieval.encoder import open_encoder

    with output.working(f"opening {model}") as say:
        encoder = open_encoder(model, threads=threads)
        done = build_index(
            photos,
            encoder,
            out or Path(f"{photos.resolve().name or 'photos'}.vidx"),
            force=force,
            progress=lambda count, of: say(f"encoding photo {count} of {of}"),
            note=output.note,
        )
    pace = f", {done.added / done.seconds:.0f} a second" if done.added and done.seconds else ""
    output.show(
        f"{done.images} photos in {done.path} ({megabytes(done.index_bytes)}): {done.added} encoded"
        f"{pace}, {done.kept} kept, {done.removed} removed, {len(done.broken)} unreadable"
    )
    output.next("search", done.path, "WORDS")
    output.result(
        {
            "index": str(done.path),
            "images": done.images,
            "added": done.added,
            "kept": done.kept,
            "removed": done.removed,
            "broken": done.broken,
            "seconds": done.seconds,
            "index_bytes": done.index_bytes,
        }
    )


def split(
    index: Annotated[
        Path,
        typer.Argument(
            metavar="PHOTOS.vidx",
            help="Made by `vitc index build`.",
            callback=existing("index", "Make one with `vitc index build`."),
        ),
    ],
    parts: Annotated[int, typer.Option("--parts", min=1, help="How many.")],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", help="Folder of the parts; by default PHOTOS-parts in this one."
        ),
    ] = None,
    force: Force = False,
    json_to: JsonTo = None,
) -> None:
    """Split an index into parts of neighbours; `vitc search DIR` merges what is found by score."""
    need("`vitc index split`", "search")
    output = Output(json_to, force=force)
    from vitc.retrieval.index_file import Index
    from vitc.retrieval.shards import split_index

    with Index.open(index) as opened:
        folder = out or Path(f"{index.stem}-parts")
        made = split_index(opened, folder, parts, force=force)
        images = opened.images
    output.show(f"{images} photos in {len(made)} parts in {folder}")
    output.next("search", folder, "WORDS")
    output.result({"parts": [str(part) for part in made], "images": images})


add_command(
    app,
    "index build",
    build,
    short_help="Make an index of a folder of photos, or bring one up to date.",
)
add_command(
    app,
    "index split",
    split,
    short_help="Write an index as several parts, for several processes or machines.",
)
