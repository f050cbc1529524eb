"""`vitc compile`: an ONNX file to an artefact folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vitc.cli.options import AllowExternalData, Force, OnnxFile, SkipCheck
from vitc.cli.output import Output, megabytes
from vitc.outputs import check_folder, prepare_folder

__all__ = ["compile_"]


def _complete_target(start: str) -> list[str]:
    from vitc.targets.table import TARGET_NAMES

    return [name for name in TARGET_NAMES.known if name.startswith(start)]


def _known_target(name: str) -> str:
    from vitc.targets import find

    find(name)
    return name


def compile_(
    onnx_file: OnnxFile,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to make.")],
    target: Annotated[
        str,
        typer.Option(
            "--target",
            metavar="NAME",
            help="See `vitc targets`.",
            autocompletion=_complete_target,
            callback=_known_target,
        ),
    ] = "native",
    batch: Annotated[
        int, typer.Option("--batch", min=1, max=64, help="Images the library takes at once.")
    ] = 1,
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

    check_folder(out, marker=MANIFEST, force=force, parts=own_files)
    if dump_ir is not None:
        prepare_folder(dump_ir, force=force)
    from vitc.api import CompileOptions
    from vitc.api import compile as compile_file

    output = Output()
    options = CompileOptions(
        target=target,
        batch=batch,
        dump_ir=dump_ir,
        force=force,
        allow_external_data=allow_external_data,
        check=not no_check,
    )
    with output.working(f"compiling {onnx_file} for {target}") as say:
        artefact = compile_file(onnx_file, out, options, say=say)
    library = megabytes(artefact.library.stat().st_size)
    output.note(f"wrote {artefact.path} ({library} library)")
    checked = artefact.manifest.check
    if isinstance(checked, str):
        output.note(f"check: {checked}")
