"""Links library and runner with zig, from PyPI: one linker for every target, offline."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from vitc.compiler.tables import WEIGHTS_ASSEMBLY
from vitc.errors import VitcError
from vitc.places import find_cache
from vitc.targets.table import Target

__all__ = ["LIBRARY", "RUNNER", "link_library", "link_runner", "run_zig"]

LIBRARY = "libvitc_model.so"
RUNNER = "vitc-run"

_STRICT = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-fno-sanitize=all")
_EXPORTS = "{ global: vitc_*; __tvm_ffi_*; local: *; };\n"


def runtime_sources() -> Path:
    """Folder of the C sources that come with vitc."""
    return Path(str(resources.files("vitc.runtime")))


def run_zig(arguments: Sequence[str], folder: Path, cache: Path | None = None) -> None:
    """Run `zig cc` in a folder.

    Args:
        arguments: Arguments.
        folder: Working directory.
        cache: Where zig keeps what it builds for a target; by default below vitc's cache folder.

    Raises:
        VitcError: If zig fails; its first error line is shown.
    """
    store = str(cache or find_cache().folder / "zig")
    environment = {**os.environ, "ZIG_GLOBAL_CACHE_DIR": store, "ZIG_LOCAL_CACHE_DIR": store}
    result = subprocess.run(
        [sys.executable, "-m", "ziglang", "cc", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        lines = [line for line in result.stderr.splitlines() if "error" in line]
        reason = (lines or result.stderr.splitlines() or ["no message"])[0].strip()
        raise VitcError(
            f"The linker failed: {reason}",
            "Check free disk space and `vitc doctor`; VITC_DEBUG=1 shows the whole message."
            if not os.environ.get("VITC_DEBUG")
            else result.stderr,
        )


def link_library(
    folder: Path, out: Path, kernels: Path, tables: str, weights: bytes, target: Target
) -> None:
    """Link the standalone library.

    Args:
        folder: Scratch folder.
        out: Path of the library.
        kernels: Object file of the kernels.
        tables: C text of the tables.
        weights: Read-only data.
        target: Machine.
    """
    (folder / "tables.c").write_text(tables)
    (folder / "weights.bin").write_bytes(weights)
    (folder / "weights.S").write_text(
        WEIGHTS_ASSEMBLY.format(alignment=64, name=(folder / "weights.bin").as_posix())
    )
    (folder / "exports.map").write_text(_EXPORTS)
    sources = runtime_sources()
    inputs = [str(sources / "vitc_driver.c"), str(sources / "vitc_tvm.c"), "tables.c"]
    code = [*_STRICT, "-fPIC", "-fvisibility=hidden", "-fno-stack-protector", f"-I{sources}"]
    link = [
        "-shared",
        "weights.S",
        str(kernels),
        "-Wl,--version-script=exports.map",
        "-Wl,-Bsymbolic",
        "-Wl,--hash-style=both",
        f"-Wl,-soname,{LIBRARY}",
        "-s",
        "-o",
        str(out),
    ]
    if target.link.endswith("-none"):
        # Compiled against some C library and linked to none: the process that loads it brings its
        # own.
        objects = [f"{Path(name).stem}.o" for name in inputs]
        for name, made in zip(inputs, objects, strict=True):
            run_zig(["-target", target.runner, *code, "-c", name, "-o", made], folder)
        run_zig(["-target", target.link, "-nostdlib", *objects, *link], folder)
    else:
        run_zig(["-target", target.link, *code, *inputs, *link], folder)


def link_runner(folder: Path, out: Path, target: Target) -> None:
    """Link the static runner of a target."""
    sources = runtime_sources()
    run_zig(
        [
            "-target",
            target.runner,
            *_STRICT,
            "-static",
            f"-I{sources}",
            str(sources / "vitc_run.c"),
            str(sources / "vitc_loader.c"),
            "-s",
            "-o",
            str(out),
        ],
        folder,
    )
