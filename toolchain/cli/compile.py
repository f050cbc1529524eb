"""`vitc compile`: an ONNX file to an artefact folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vitc.cli.options import AllowExternalData, Force, SkipCheck, TargetName, existing
from vitc.cli.output import Output, megabytes
from vitc.cli.tvm_alone import import_tvm_alone
from vitc.errors import VitcError
from vitc.outputs import check_folder, prepare_folder

__all__ = ["compile_"]


def _source(files: list[str]) -> Path | dict[str, Path | None]:
    """What is compiled: one file, or the file of each entry."""
    if len(files) == 1 and (Path(files[0]).exists() or "=" not in files[0]):
        return _existing(Path(files[0]))
    source: dict[str, Path | None] = {}
    for given in files:
        name, found, file = given.partition("=")
        if not found and Path(given).exists():
            raise VitcError(
                f"{given} does not say which entry it is.",
                "Write NAME=M.onnx for each file, or compile one alone.",
            )
        if name in source:
            raise VitcError(f"The entry {name} is given twice.", "Name each entry once.")
        source[name] = _existing(Path(file)) if found else None
    return source


def _existing(path: Path) -> Path:
    existing("ONNX file", "Make one with `vitc export CKPT --out M.onnx`.")(path)
    return path


def _folder(source: Path | dict[str, Path | None], target: str) -> Path:
    if isinstance(source, Path):
        return Path(f"{source.stem}-{target}")
    raise VitcError("An artefact of several files has no name of its own.", "Add --out DIR.")


def compile_(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="M.onnx|ENTRY=M.onnx...",
            help="Made by `vitc export`. Several are entries of one artefact, each with its name; "
            "an entry without a file scores the vectors of the entries image and text.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Folder to make; by default M-TARGET, of the name of the only file.",
        ),
    ] = None,
    target: TargetName = "native",
    batch: Annotated[
        int, typer.Option("--batch", min=1, max=64, help="Images the library takes at once.")
    ] = 1,
    symbol_prefix: Annotated[
        str,
        typer.Option(
            "--symbol-prefix",
            metavar="NAME",
            help="Symbols of the static library begin with it in place of vitc, so that several "
            "models fit into one program.",
            show_default=False,
        ),
    ] = "",
    dump_ir: Annotated[
        Path | None,
        typer.Option("--dump-ir", metavar="DIR", help="Write the program after each phase."),
    ] = None,
    force: Force = False,
    allow_external_data: AllowExternalData = False,
    no_check: SkipCheck = False,
) -> None:
    """Compile an ONNX file to a native library with its runner and manifest.

    The library is compared layer by layer with the ONNX file before the folder gets its name; for
    another architecture under qemu, where that is installed.
    """
    from vitc.runtime.artefact import MANIFEST, own_files

    source = _source(files)
    out = out or _folder(source, target)
    check_folder(out, marker=MANIFEST, force=force, parts=own_files)
    if dump_ir is not None:
        prepare_folder(dump_ir, force=force)
    from vitc.api import CompileOptions
    from vitc.api import compile as compile_file

    import_tvm_alone()
    output = Output()
    options = CompileOptions(
        target=target,
        batch=batch,
        dump_ir=dump_ir,
        force=force,
        allow_external_data=allow_external_data,
        check=not no_check,
        symbol_prefix=symbol_prefix,
    )
    with output.working(f"compiling {' '.join(files)} for {target}") as say:
        artefact = compile_file(source, out, options, say=say)
    library = megabytes(artefact.library.stat().st_size)
    output.note(f"wrote {artefact.path} ({library} library)")
    checked = artefact.manifest.check
    if isinstance(checked, str):
        output.note(f"check: {checked}")
    there = ("--device", "qemu") if artefact.missing_features() else ()
    output.next("check", artefact.path, "--reference", "CKPT", *there)
