"""Networks of other ports than one image and logits: arrays by name, from files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitc.devices.device import DeviceRun, RunRequest
from vitc.devices.table import parse_device
from vitc.errors import VitcError
from vitc.names import TASKS
from vitc.runtime.artefact import Artefact

__all__ = ["needs_names", "run_named"]


def needs_names(model: Path, entry: str | None = None) -> bool:
    """Whether something is an artefact whose inputs have to be named.

    That of a classifier or of a network of a task takes pictures.

    Args:
        model: An artefact folder or an ONNX file.
        entry: Name of an entry, whose inputs always have to be; None for the first.

    Raises:
        VitcError: If there is no such entry.
    """
    if not model.is_dir():
        if entry is not None:
            raise VitcError(
                f"{model} is an ONNX file, which runs whole.", "Leave --entry away, or compile it."
            )
        return False
    chosen = Artefact.open(model, verify=False).at(entry)
    pictures = chosen.manifest.config.get("arch") in TASKS.known
    return entry is not None or (chosen.entry.classifier is None and not pictures)


def run_named(
    model: Path,
    inputs: Sequence[Path],
    *,
    entry: str | None = None,
    device: str = "local",
    threads: int = 1,
    pin: bool = False,
) -> DeviceRun:
    """Run an artefact on arrays of files.

    Args:
        model: An artefact folder.
        inputs: ``NAME=FILE.npy``, one for each input.
        entry: Name of the entry; None for the first.
        device: Where, as behind ``--device``.
        threads: Threads of the library.
        pin: Whether to bind each thread to a processor of its own.

    Raises:
        VitcError: If a file is no array, an input is missing or does not fit, or the device fails.
    """
    artefact = Artefact.open(model).at(entry)
    ports = "; ".join(map(str, artefact.entry.inputs))
    hint = f"Write NAME=FILE.npy for each input: {ports}."
    arrays: dict[str, NDArray[Any]] = {}
    for given in map(str, inputs):
        name, found, file = given.partition("=")
        if not found:
            raise VitcError(f"{given} does not say which input it is.", hint)
        if name in arrays:
            raise VitcError(f"The input {name} is given twice.", hint)
        try:
            arrays[name] = np.load(file, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise VitcError(f"{file} is no .npy file ({error}).", hint) from error
    return parse_device(device).run(artefact, arrays, RunRequest(threads=threads, pin=pin))
