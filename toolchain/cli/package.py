"""`vitc package`: an artefact to a wheel for people who have no vitc."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from vitc.cli.options import Artefact, Force
from vitc.cli.output import Output, megabytes

__all__ = ["package"]


def package(
    artefact: Artefact,
    out: Annotated[
        Path, typer.Option("--out", metavar="FOLDER", help="Where the wheel is written.")
    ] = Path(),
    name: Annotated[
        str | None,
        typer.Option(
            "--name", metavar="NAME", help="What it is imported by; by default the name of DIR."
        ),
    ] = None,
    version: Annotated[str, typer.Option("--version", metavar="X.Y", help="Of the wheel.")] = "1.0",
    force: Force = False,
) -> None:
    """Make a small wheel of a classifier: its library, its labels and `predict`.

    It needs NumPy, and Pillow for files of pictures; its name says which machines it is for.
    """
    from vitc.runtime.wheel import package as make_wheel

    output = Output()
    made = make_wheel(artefact, out, name=name, version=version, force=force)
    package_name = made.name.partition("-")[0]
    output.note(f"wrote {made} ({megabytes(made.stat().st_size)})")
    output.note(f"next: pip install {shlex.quote(str(made))}, then import {package_name}")
