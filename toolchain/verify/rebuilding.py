"""An artefact against what its own ONNX file compiles to, byte for byte.

A run shows a wrong constant or instruction only where an image reaches it. Compiling is
deterministic, so the same compiler makes every file of the folder again from `model.onnx`, and any
byte that differs is a fault, whether an image shows it or not.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from vitc.compiler import compile_model
from vitc.compiler.fingerprint import compiler_fingerprint
from vitc.errors import VitcError
from vitc.runtime.artefact import Artefact

__all__ = ["OTHER_COMPILER", "SAME_BYTES", "compare_with_rebuilt", "rebuild"]

SAME_BYTES: Final = "byte for byte what model.onnx compiles to"
OTHER_COMPILER: Final = (
    "made by another vitc than this one, so judged by its values alone; compile it again to have "
    "its bytes compared"
)

_JUDGED_ELSEWHERE: Final = frozenset({"check", "files"})
"""What the manifest says of the check when it was made, and the digests of the files."""


def rebuild(artefact: Artefact, folder: Path, say: Callable[[str], None]) -> Artefact:
    """Compile an artefact's ONNX file again, for the target and with the tiles of its manifest.

    It has no self-test, whose inputs a run chose.
    """
    return compile_model(
        artefact.source,
        artefact.target,
        folder,
        batch=artefact.batch,
        tiles=artefact.tiles,
        symbol_prefix=artefact.manifest.symbol_prefix,
        self_test=False,
        progress=lambda phase: say(f"compiling model.onnx again: {phase}"),
    )


def compare_with_rebuilt(
    artefact: Artefact, say: Callable[[str], None] = lambda _: None
) -> tuple[str, list[str]]:
    """Compile an artefact's ONNX file again and compare libraries, runner, headers, manifest.

    Args:
        artefact: Its ONNX file is there; that this is the right one is for others to judge.
        say: Told what is being done.

    Returns:
        What is known of the library's bytes, and a sentence for each fault.
    """
    if artefact.manifest.compiler != compiler_fingerprint():
        return OTHER_COMPILER, []
    with tempfile.TemporaryDirectory(prefix="vitc-check-") as name:
        try:
            again = rebuild(artefact, Path(name) / "again", say)
        except VitcError as error:
            what = "model.onnx does not compile with what the manifest says"
            return "not compiled again", [f"{what}: {error.message}"]
        faults = [*_file_faults(artefact, again), *_manifest_faults(artefact, again)]
    return (f"not {SAME_BYTES}" if faults else SAME_BYTES), faults


def _file_faults(artefact: Artefact, again: Artefact) -> Iterator[str]:
    for name in sorted(again.manifest.digests):
        if name.endswith(again.onnx.suffix):
            continue
        try:
            own, made = (
                np.frombuffer((each.path / name).read_bytes(), np.uint8)
                for each in (artefact, again)
            )
        except OSError as error:
            yield f"{name} cannot be read: {error.strerror or error}"
            continue
        if own.size != made.size:
            yield f"{name} has {own.size} bytes, and model.onnx compiles to {made.size}"
        elif (places := np.flatnonzero(own != made)).size:
            yield (
                f"{name} is not what model.onnx compiles to: {places.size} bytes differ, the first "
                f"at offset {places[0]}"
            )


def _manifest_faults(artefact: Artefact, again: Artefact) -> Iterator[str]:
    own, made = (
        {
            key: value
            for key, value in each.manifest.to_dict().items()
            if key not in _JUDGED_ELSEWHERE
        }
        for each in (artefact, again)
    )
    for place, found, wanted in _differences("", own, made):
        yield f"manifest.json: {place} is {found!r}, and model.onnx compiles to {wanted!r}"
    listed = set(artefact.manifest.digests)
    for name in sorted(set(again.manifest.digests) - listed):
        yield f"manifest.json has no digest of {name}"


def _differences(place: str, own: Any, made: Any) -> Iterator[tuple[str, Any, Any]]:
    """Name every leaf in which two JSON values differ; None stands for what one lacks."""
    if isinstance(own, dict) and isinstance(made, dict):
        for key in sorted({*own, *made}):
            yield from _differences(f"{place}.{key}" if place else key, own.get(key), made.get(key))
    elif isinstance(own, list) and isinstance(made, list) and len(own) == len(made):
        for index, (left, right) in enumerate(zip(own, made, strict=True)):
            yield from _differences(f"{place}[{index}]", left, right)
    elif type(own) is not type(made) or own != made:
        yield place, own, made
