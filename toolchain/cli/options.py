"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias

import typer

from vitc import names
from vitc.errors import VitcError

__all__ = [
    "AllowExternalData",
    "Artefact",
    "Background",
    "BatchSize",
    "Checkpoint",
    "Data",
    "DeviceName",
    "DeviceNames",
    "EntryName",
    "Force",
    "ImageSize",
    "JsonTo",
    "MLPRatio",
    "Merge",
    "MixedPrecision",
    "Norm",
    "Pin",
    "ReportTo",
    "Resume",
    "Seed",
    "SkipCheck",
    "TargetName",
    "Threads",
    "TrainingThreads",
    "bits",
    "colours",
    "existing",
    "known_data",
    "pixels",
]

_LARGEST_SEED: Final = (1 << 63) - 1
"""What PyTorch takes."""


def existing(what: str, hint: str) -> Callable[[Path | None], Path | None]:
    """A callback that refuses a path to nothing before anything heavy is imported.

    Args:
        what: What should be there.
        hint: How to get it.
    """

    def check(path: Path | None) -> Path | None:
        if path is not None and not path.exists():
            raise names.absent(path, what, hint)
        return path

    return check


def known_data(data: str | None) -> str | None:
    """A callback that refuses data which are neither the digits nor a folder."""
    if data is None or data in names.SCENES or Path(data).is_dir():
        return data
    hint = f"Name a folder of class folders of images, or {names.DATA!r}."
    near = names.did_you_mean(data, names.SCENES)
    if near == ".":
        raise names.absent(Path(data), "data folder", hint)
    raise VitcError(f"There is no data folder {data}{near}", hint)


def pixels(text: str) -> int | tuple[int, int]:
    """``H`` or ``HxW`` to one side, or height and width."""
    sides = [int(part) if part.isascii() and part.isdigit() else 0 for part in text.split("x")]
    if len(sides) > 2 or min(sides) < 1:
        raise typer.BadParameter(
            f"{text!r} is no size in pixels, wanted H or HxW, such as 192x256."
        )
    return sides[0] if len(sides) == 1 else (sides[0], sides[1])


def colours(text: str) -> tuple[float, float, float]:
    """``R,G,B``, or one number for all three."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 3):
        raise typer.BadParameter(
            f"{text!r} is no number for each colour, wanted R,G,B, such as 0.485,0.456,0.406."
        )
    red, green, blue = numbers * 3 if len(numbers) == 1 else numbers
    return red, green, blue


def bits(text: str) -> int:
    """``1`` or ``32``."""
    if text not in ("1", "32"):
        raise typer.BadParameter(f"Weights have 1 or 32 bits, found {text!r}.")
    return int(text)


def _complete_target(start: str) -> list[str]:
    from vitc.targets.table import TARGET_NAMES

    return TARGET_NAMES.complete(start)


def _known_target(name: str) -> str:
    from vitc.targets import find

    find(name)
    return name


def _known_device(text: str) -> str:
    if "://" in names.check_device(text):
        from vitc.devices.table import parse_device

        parse_device(text)
    return text


def _known_devices(text: str) -> str:
    if names.check_device(text).startswith("rpc://"):
        from vitc.devices.farm import Farm, is_farm

        if is_farm(text):
            Farm.parse(text)
            return text
    return _known_device(text)


def _artefact(path: Path) -> Path:
    if path.is_file():
        raise VitcError(
            f"{path} is a file, wanted an artefact folder.",
            f"Compile it, `vitc compile {path} --out DIR`, and name that folder."
            if path.suffix == ".onnx"
            else "Name the folder that `vitc compile --out` wrote.",
        )
    if not path.exists():
        raise names.absent(path, "folder", "Make one with `vitc compile M.onnx --out DIR`.")
    return path


Artefact: TypeAlias = Annotated[
    Path, typer.Argument(metavar="DIR", help="An artefact folder.", callback=_artefact)
]
Checkpoint: TypeAlias = Annotated[
    Path,
    typer.Argument(
        metavar="CKPT",
        help="A .safetensors or .pth.tar.",
        callback=existing("checkpoint", "Make one with `vitc new` or `vitc train`."),
    ),
]
MixedPrecision: TypeAlias = Annotated[
    str,
    typer.Option(
        "--mixed-precision",
        metavar="no|bf16",
        help="Products of training in bfloat16; what is judged and written is not.",
        callback=names.PRECISIONS.check,
        autocompletion=names.PRECISIONS.complete,
    ),
]

EntryName: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--entry", metavar="NAME", help="Of several entries that an artefact has; or the first."
    ),
]
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
ImageSize: TypeAlias = Annotated[
    Any,
    typer.Option(
        "--image-size", metavar="H|HxW", parser=pixels, help="Pixels; sets the token count."
    ),
]
Norm: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--norm",
        metavar="batch|layer",
        help="Norms of the stream: per token over the batch, or over channels.",
        callback=names.optional(names.NORMS),
        autocompletion=names.NORMS.complete,
    ),
]
MLPRatio: TypeAlias = Annotated[
    int | None, typer.Option("--mlp-ratio", min=1, help="Hidden over input width of the MLP.")
]
Merge: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--merge",
        metavar="float|binary",
        help="Between stages: fp32 as in the papers, or binary linears of moved signs.",
        callback=names.optional(names.MERGES),
        autocompletion=names.MERGES.complete,
    ),
]
BatchSize: TypeAlias = Annotated[
    int, typer.Option("--batch-size", min=1, help="Images a step, of all processes.")
]
Resume: TypeAlias = Annotated[
    bool, typer.Option("--resume", help="Go on where a run stopped; --epochs may be more.")
]
TrainingThreads: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--threads", min=1, help="By default all cores, or one for networks as narrow as micro."
    ),
]
Seed: TypeAlias = Annotated[
    int, typer.Option("--seed", min=0, max=_LARGEST_SEED, help="Seed of all randomness.")
]
Threads: TypeAlias = Annotated[
    int,
    typer.Option("--threads", min=1, help="Threads to use; never more than there are processors."),
]
TargetName: TypeAlias = Annotated[
    str,
    typer.Option(
        "--target",
        metavar="NAME",
        help="See `vitc targets`.",
        autocompletion=_complete_target,
        callback=_known_target,
    ),
]
Pin: TypeAlias = Annotated[
    bool, typer.Option("--pin", help="Bind each thread to a processor of its own.")
]
DeviceName: TypeAlias = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="DEVICE",
        help="Where to run: local, qemu, ssh://, adb:// or rpc://.",
        autocompletion=names.DEVICES.complete,
        callback=_known_device,
    ),
]
DeviceNames: TypeAlias = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="DEVICE",
        help="Where to run: local, qemu, ssh://, adb:// or rpc://; rpc://tracker/KIND* is all such "
        "boards of a farm at once.",
        autocompletion=names.DEVICES.complete,
        callback=_known_devices,
    ),
]
Data: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="digits|DIR",
        help="Labelled images: digits, or class folders.",
        callback=known_data,
    ),
]
