"""`vitc search`: find photos by words, or by a photo that they are like."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vitc.cli.options import Force, JsonTo, Threads, existing
from vitc.cli.output import Output
from vitc.cli.tables import table

__all__ = ["search"]


def search(
    index: Annotated[
        Path,
        typer.Argument(
            metavar="PHOTOS.vidx",
            help="Made by `vitc index build`.",
            callback=existing("index", "Make one with `vitc index build`."),
        ),
    ],
    words: Annotated[
        str | None, typer.Argument(metavar="[WORDS]", help='What to find: "a dog on a beach".')
    ] = None,
    top: Annotated[int, typer.Option("--top", min=1, help="Photos to find.")] = 10,
    like: Annotated[
        Path | None,
        typer.Option(
            "--like",
            metavar="PHOTO",
            help="Find what is like a photo, instead of words.",
            callback=existing("photo", "Name a picture file."),
        ),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            "--model",
            metavar="DIR|CKPT",
            help="Towers of the query; by default those that the index was built with.",
            callback=existing("model", "Name the one that the index was built with."),
        ),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE.html", help="Write a page with thumbnails."),
    ] = None,
    threads: Threads = 1,
    force: Force = False,
    json_to: JsonTo = None,
) -> None:
    """Find the photos that fit words best; equal scores come in the order of the index."""
    if (words is None) == (like is None):
        raise typer.BadParameter("Give words to search for, or --like PHOTO.")
    output = Output(json_to, force=force)
    from vitc.outputs import check_file
    from vitc.retrieval.encoder import open_encoder
    from vitc.retrieval.index_file import Index
    from vitc.retrieval.querying import model_of, query

    if html is not None:
        check_file(html, force=force)
    with Index.open(index) as opened:
        with output.working("opening the model"):
            encoder = open_encoder(model or model_of(opened), threads=threads)
        opened.refuse_other(encoder.model)
        answer = query(opened, encoder, text=words, like=like, count=top)
        photos = opened.facts.photos
    rows = [
        (str(place), f"{found.score:d}", found.name) for place, found in enumerate(answer.found, 1)
    ]
    output.show(table((">", ">score", "photo"), rows))
    output.show(
        f"{answer.images} photos; scores from {answer.least} to {-answer.least}; query "
        f"{answer.encode_ms:.1f} ms, search {answer.search_ms:.1f} ms"
    )
    if html is not None:
        from vitc.outputs import write_file
        from vitc.retrieval.page import page

        title = words if words is not None else f"like {like}"
        write_file(html, page(title, Path(photos), answer), force=force)
        output.note(f"wrote {html}")
    output.result(
        {
            "query": words,
            "like": None if like is None else str(like),
            "photos": photos,
            "images": answer.images,
            "encode_ms": answer.encode_ms,
            "search_ms": answer.search_ms,
            "found": [
                {"id": found.name, "score": found.score, "index": found.index}
                for found in answer.found
            ],
        }
    )
