"""Links library and runner with zig, from PyPI: one linker for every target, offline."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

from vitc.compiler import zig_process
from vitc.compiler.described import UNDESCRIBED
from vitc.compiler.tables import WEIGHTS_ASSEMBLY
from vitc.errors import VitcError
from vitc.places import find_cache
from vitc.targets.table import Target

__all__ = [
    "LIBRARY",
    "LIBRARY_SOURCES",
    "RUNNER",
    "RUNNER_SOURCES",
    "TVM_SOURCE",
    "archive",
    "link_library",
    "linking_runner",
    "run_zig",
    "zig_folder",
]

LIBRARY = "libvitc_model.so"
RUNNER = "vitc-run"
RUNNER_SOURCES = (
    "vitc_run.c",
    "vitc_arrays.c",
    "vitc_boxes.c",
    "vitc_self_test.c",
    "vitc_loader.c",
)
"""What the runner is linked of, below `runtime_sources`."""
TVM_SOURCE = "vitc_tvm.c"
"""The entry for TVM; a static library has none, since TVM could not load it."""
LIBRARY_SOURCES = ("vitc_driver.c", "vitc_preprocess.c")
"""What libraries are made of, below `runtime_sources`."""
_GENERATED = ("tables.c", "described.c", "weights.S")
_MODEL = "model.o"

_STRICT = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-fno-sanitize=all")
_LIMIT_S = 1800
_EXPORTS = "{ global: vitc_*; __tvm_ffi_*; local: *; };\n"


def runtime_sources() -> Path:
    """Folder of the C sources that come with vitc."""
    return Path(str(resources.files("vitc.runtime")))


def run_zig(
    arguments: Sequence[str], folder: Path, cache: Path | None = None, *, tool: str = "cc"
) -> None:
    """Run `zig cc` in a folder, or another of zig's tools.

    Args:
        arguments: Arguments; names relative to `folder`, since zig and the linker break on some
            characters of a path.
        folder: Working directory, also for what zig makes on its way.
        cache: Where zig keeps what it builds for a target; by default below vitc's cache folder.
        tool: ``cc``, or ``ar``.

    Raises:
        VitcError: If zig fails or takes longer than half an hour; its first error line is shown.
    """
    with running_zig(arguments, folder, cache, tool=tool) as wait:
        wait()


@contextmanager
def running_zig(
    arguments: Sequence[str], folder: Path, cache: Path | None = None, *, tool: str = "cc"
) -> Iterator[Callable[[], None]]:
    """Run `zig cc` beside other work, until the block ends.

    Args:
        arguments: As of `run_zig`.
        folder: As of `run_zig`.
        cache: As of `run_zig`.
        tool: As of `run_zig`.

    Yields:
        A function that waits for zig and raises as `run_zig`. When the block is left before zig
        is done, zig and its children are ended.
    """
    store = str(cache or find_cache().folder / "zig")
    environment = {
        **os.environ,
        "ZIG_GLOBAL_CACHE_DIR": store,
        "ZIG_LOCAL_CACHE_DIR": store,
        # So that what it leaves when it is ended goes with the folder.
        "TMPDIR": ".",
    }
    with tempfile.TemporaryFile("w+", dir=folder, errors="replace") as log:
        process = subprocess.Popen(
            [
                sys.executable,
                "-IS",
                zig_process.__file__,
                str(os.getpid()),
                _zig(),
                tool,
                *arguments,
            ],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            process_group=0,
        )

        def wait() -> None:
            try:
                code = process.wait(_LIMIT_S)
            except subprocess.TimeoutExpired as error:
                raise VitcError(
                    f"The linker was not done after {_LIMIT_S // 60} minutes.",
                    "Try again when the machine is less busy.",
                ) from error
            if code:
                log.seek(0)
                raise _failure(log.read())

        try:
            yield wait
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def zig_folder() -> Path:
    """Where zig is installed, with the headers of the C libraries that it links for."""
    found = importlib.util.find_spec("ziglang")
    if found is None or not found.submodule_search_locations:
        raise VitcError("The package ziglang is missing.", "python -m pip install ziglang")
    return Path(found.submodule_search_locations[0])


def _zig() -> str:
    return str(zig_folder() / "zig")


def _failure(said: str) -> VitcError:
    lines = [line for line in said.splitlines() if "error" in line]
    reason = (lines or said.splitlines() or ["no message"])[0].strip()
    return VitcError(
        f"The linker failed: {reason}",
        "Check free disk space and `vitc doctor`; VITC_DEBUG=1 shows the whole message."
        if not os.environ.get("VITC_DEBUG")
        else said,
    )


def link_library(
    folder: Path,
    out: Path,
    kernels: Path,
    tables: str,
    weights: bytes,
    target: Target,
    description: str = UNDESCRIBED,
    *,
    more: Sequence[str] = (),
) -> list[Path]:
    """Link the standalone library.

    Args:
        folder: Scratch folder.
        out: Path of the library.
        kernels: Object file of the kernels, in `folder`.
        tables: C text of the tables.
        weights: Read-only data.
        target: Machine.
        description: C text of what the model says of its pictures and classes.
        more: Sources of what it does beside running, below `runtime_sources`.

    Returns:
        Objects of the interface and all that is behind it, in `folder`.
    """
    (folder / "tables.c").write_text(tables)
    (folder / "described.c").write_text(description)
    (folder / "weights.bin").write_bytes(weights)
    (folder / "weights.S").write_text(WEIGHTS_ASSEMBLY.format(alignment=64, name="weights.bin"))
    (folder / "exports.map").write_text(_EXPORTS)
    sources = runtime_sources()
    inputs = [*(str(sources / name) for name in (*LIBRARY_SOURCES, *more)), *_GENERATED]
    of_tvm = [str(sources / TVM_SOURCE)]
    code = [*_STRICT, "-fPIC", "-fvisibility=hidden", "-fno-stack-protector", f"-I{sources}"]
    link = [
        "-shared",
        kernels.name,
        "-Wl,--version-script=exports.map",
        "-Wl,-Bsymbolic",
        "-Wl,--hash-style=both",
        f"-Wl,-soname,{LIBRARY}",
        "-s",
        "-o",
        LIBRARY,
    ]
    # Linked to no C library, it is compiled against some: the process that loads it brings its own.
    alone = target.link.endswith("-none")
    compiled_for = ["-target", target.runner if alone else target.link]
    run_zig([*compiled_for, *code, "-g0", "-r", *inputs, "-o", _MODEL], folder)
    if alone:
        run_zig([*compiled_for, *code, "-c", *of_tvm, "-o", "vitc_tvm.o"], folder)
        run_zig(["-target", target.link, "-nostdlib", "vitc_tvm.o", _MODEL, *link], folder)
    else:
        run_zig([*compiled_for, *code, *of_tvm, _MODEL, *link], folder)
    (folder / LIBRARY).rename(out)
    return [folder / _MODEL, folder / kernels.name]


def archive(folder: Path, objects: Sequence[Path], out: Path) -> None:
    """Make a static library; the same objects give the same bytes.

    Args:
        folder: Where the objects are.
        objects: ELF objects.
        out: The library.
    """
    run_zig(["rcsD", "archive.a", *(path.name for path in objects)], folder, tool="ar")
    (folder / "archive.a").rename(out)


@contextmanager
def linking_runner(folder: Path, out: Path, target: Target) -> Iterator[Callable[[], None]]:
    """Link the static runner of a target beside other work, until the block ends.

    Args:
        folder: Scratch folder, which is made.
        out: Path of the runner.
        target: Machine.

    Yields:
        A function that waits for it, and raises what `run_zig` raises.
    """
    folder.mkdir()
    sources = runtime_sources()
    arguments = [
        "-target",
        target.runner,
        *_STRICT,
        "-static",
        f"-I{sources}",
        *(str(sources / name) for name in RUNNER_SOURCES),
        "-s",
        "-o",
        RUNNER,
    ]
    with running_zig(arguments, folder) as wait:

        def finish() -> None:
            wait()
            (folder / RUNNER).rename(out)

        yield finish
