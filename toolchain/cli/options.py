"""Options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

__all__ = [
    "AllowExternalData",
    "Background",
    "Data",
    "DeviceName",
    "Force",
    "JsonTo",
    "OnnxScheme",
    "ReportTo",
    "Seed",
    "SkipCheck",
    "Threads",
]


class OnnxScheme(StrEnum):
    """What the binary operators of an exported file are made of."""

    PACKED = "packed"
    INT8 = "int8"
    FLOAT = "float"


JsonTo: TypeAlias = Annotated[
    str | None,
    typer.Option("--json", metavar="FILE", help="Write the result as JSON; - is stdout."),
]
ReportTo: TypeAlias = Annotated[
    Path | None,
    typer.Option("--report", metavar="FILE.html", help="Write one self-contained HTML file."),
]
Force: TypeAlias = Annotated[bool, typer.Option("--force", help="Replace an existing output.")]
SkipCheck: TypeAlias = Annotated[
    bool, typer.Option("--no-check", help="Skip the short check of the result.")
]
AllowExternalData: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--allow-external-data",
        help="Read constants that the ONNX file keeps in other files of its own folder.",
    ),
]
Background: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--background",
        metavar="COLOUR",
        help="What lies below transparent pixels: white, #rrggbb or r,g,b. "
        "By default what the network was trained with, which is white unless stated.",
    ),
]
Seed: TypeAlias = Annotated[int, typer.Option("--seed", min=0, help="Seed of all randomness.")]
Threads: TypeAlias = Annotated[int, typer.Option("--threads", min=1, help="Threads to use.")]
DeviceName: TypeAlias = Annotated[
    str,
    typer.Option(
        "--device", metavar="DEVICE", help="Where to run: local, qemu, ssh://, adb:// or rpc://."
    ),
]
Data: TypeAlias = Annotated[
    str | None,
    typer.Option("--data", metavar="digits|DIR", help="Labelled images: digits, or class folders."),
]
