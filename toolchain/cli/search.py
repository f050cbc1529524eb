"""`vitc search`: find photos by words, or by a photo that they are like."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from vitc.cli.options import Force, JsonTo, Threads, existing
from vitc.cli.output import Output
from vitc.cli.tables import table
from vitc.extras import need

if TYPE_CHECKING:
    from vitc.retrieval.encoder import Encoder

__all__ = ["search"]

_RANKED: Final = 100
"""Photos that another index orders again."""


def search(
    index: Annotated[
        Path,
        typer.Argument(
            metavar="PHOTOS.vidx",
            help="Made by `vitc index build`, or a folder of `vitc index split`.",
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
    ranked: Annotated[
        int | None,
        typer.Option(
            "--ranked",
            min=1,
            help="Scan first vectors, and order so many of the best by all vectors.",
        ),
    ] = None,
    rank_by: Annotated[
        Path | None,
        typer.Option(
            "--rank-by",
            metavar="BASE.vidx",
            help="Order the best by this index of the same photos, of other towers.",
            callback=existing("index", "Make one with `vitc index build`."),
        ),
    ] = None,
    jobs: Annotated[
        int, typer.Option("--jobs", min=1, help="Processes that search the parts of a folder.")
    ] = 1,
    serve: Annotated[
        bool, typer.Option("--serve", help="Show a page on this machine to type words in.")
    ] = False,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Of the page; 0 for any that is free.")
    ] = 8765,
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE.html", help="Write a page with thumbnails."),
    ] = None,
    threads: Threads = 1,
    force: Force = False,
    json_to: JsonTo = None,
) -> None:
    """Find the photos that fit words best; equal scores come in the order of the index."""
    split = index.is_dir()
    if serve:
        others = (words, like, ranked, rank_by, html, json_to)
        if split or any(given is not None for given in others):
            raise typer.BadParameter(
                "--serve takes an index, --model, --top, --port and --threads; words are typed "
                "into its page."
            )
    elif (words is None) == (like is None):
        raise typer.BadParameter("Give words to search for, or --like PHOTO.")
    if split and rank_by is not None:
        raise typer.BadParameter("--rank-by is for an index that is one file.")
    need("`vitc search`", "search")
    output = Output(json_to, force=force)
    from vitc.outputs import check_file
    from vitc.retrieval.encoder import open_encoder
    from vitc.retrieval.index_file import Index
    from vitc.retrieval.querying import model_of, query, query_shards
    from vitc.retrieval.ranking import Ranking
    from vitc.retrieval.shards import shards_of

    if html is not None:
        check_file(html, force=force)
    parts = shards_of(index) if split else [index]
    with ExitStack() as stack:
        opened = stack.enter_context(Index.open(parts[0]))
        with output.working("opening the model"):
            encoder = open_encoder(model or model_of(opened), threads=threads)
        opened.refuse_other(encoder.model)
        if serve:
            _serve(output, index, encoder, port, top)
            return
        photos = opened.facts.photos
        if split:
            answer = query_shards(
                parts, encoder, text=words, like=like, count=top, ranked=ranked or 0, jobs=jobs
            )
        else:
            by = None
            if rank_by is not None:
                other = stack.enter_context(Index.open(rank_by))
                with output.working("opening the other model"):
                    second = open_encoder(model_of(other), threads=threads)
                other.refuse_other(second.model)
                by = Ranking(other, second, ranked or max(_RANKED, top))
            answer = query(
                opened, encoder, text=words, like=like, count=top, ranked=ranked or 0, by=by
            )
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


def _serve(output: Output, index: Path, encoder: Encoder, port: int, count: int) -> None:
    from vitc.retrieval.serving import PageServer

    with PageServer(index, encoder, port=port, count=count) as server:
        output.show(f"{server.url} until Ctrl-C; nothing but this machine reaches it")
        with suppress(KeyboardInterrupt):
            server.serve_forever()
