"""The tensors of a checkpoint file and what stands beside them, read without running anything.

A file is never unpickled unsafely: only tensors, plain containers and ``argparse.Namespace`` are
let through, and what would take more memory or time than a network needs is refused before it is
read.
"""

from __future__ import annotations

import argparse
import json
import pickle
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from vitc.errors import VitcError
from vitc.models.pickle_limits import excess
from vitc.models.state_dicts import StateDict, find_state_dict, unwrapped

__all__ = ["METADATA_KEY", "TORCH_SUFFIXES", "Contents", "json_object", "read_contents", "whole"]

METADATA_KEY: Final = "vitc"
TORCH_SUFFIXES: Final = (".pth.tar", ".pth", ".pt", ".ckpt", ".bin")
_MAX_BYTES: Final = 4 << 30
_MAX_HEADER: Final = 64 << 20
_LEGACY_PICKLES: Final = 5
"""At the start of a file that is no archive: magic, version, system, tensors, their keys."""

_GET_ONE: Final = "Make a fresh one with `vitc new`, or copy the file again."


@dataclass(frozen=True)
class Contents:
    """What a file holds.

    Attributes:
        tensors: By name, without the prefixes of wrappers.
        described: What vitc wrote beside them; empty if another program made the file.
        notes: Sentences about what was taken, and what was left.
    """

    tensors: dict[str, Tensor]
    described: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@contextmanager
def whole(file: Path) -> Iterator[None]:
    """Whatever a damaged file makes torch and the zip reader raise is one error that names it."""
    try:
        yield
    except VitcError:
        raise
    except Exception as error:
        first = str(error).strip().partition("\n")[0]
        raise VitcError(f"{file} is not a whole checkpoint: {first}", _GET_ONE) from error


def read_contents(
    file: Path, *, ema: bool = False, anchors: Sequence[str] | None = None
) -> Contents:
    """Read a file's tensors and description.

    Args:
        file: ``.safetensors``, or what torch.save wrote.
        ema: Take the averaged weights, ``state_dict_ema`` of a file of torch.save.
        anchors: Tensors that tell where a prefix ends, see `vitc.models.state_dicts`; None for
            those of the architectures.

    Raises:
        VitcError: If the file is missing, damaged, of another kind, or not safe to read.
    """
    _check_file(file)
    if file.name.lower().endswith(TORCH_SUFFIXES):
        return _read_torch(file, ema, anchors)
    if ema:
        raise VitcError(
            f"{file} is a safetensors file, which has one state dict and no EMA copy.",
            "Leave the EMA option away.",
        )
    return _read_safetensors(file, anchors)


def _check_file(file: Path) -> None:
    if file.is_dir():
        raise VitcError(
            f"{file} is a directory, wanted a checkpoint file.",
            "Name the .safetensors or .pth.tar file in it.",
        )
    if not file.is_file():
        raise VitcError(f"There is no checkpoint {file}.", "Make one with `vitc new`.")
    if not file.name.lower().endswith((".safetensors", *TORCH_SUFFIXES)):
        raise VitcError(
            f"{file} is not named like a checkpoint, wanted .safetensors, .pth.tar, .pth, "
            ".pt, .ckpt or .bin.",
            "Name a checkpoint file.",
        )
    try:
        size = file.stat().st_size
        with file.open("rb"):
            pass
    except OSError as error:
        raise VitcError(f"{file} cannot be read: {error.strerror}.") from error
    if size == 0:
        raise VitcError(f"{file} is empty.", _GET_ONE)
    if size > _MAX_BYTES:
        raise VitcError(
            f"{file} has {size} bytes; vitc reads checkpoints of up to {_MAX_BYTES}.",
            "Drop the optimizer state from it.",
        )


def _read_safetensors(file: Path, anchors: Sequence[str] | None) -> Contents:
    size = file.stat().st_size
    with file.open("rb") as stream:
        start = stream.read(9)
    header = int.from_bytes(start[:8], "little")
    if len(start) < 9 or start[8:] != b"{" or header > min(size - 8, _MAX_HEADER):
        raise VitcError(f"{file} is not a whole safetensors file: its header is damaged.", _GET_ONE)
    try:
        with safe_open(file, framework="pt") as opened:
            described = (opened.metadata() or {}).get(METADATA_KEY)
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError, RuntimeError, OSError) as error:
        raise VitcError(f"{file} is not a whole safetensors file: {error}.", _GET_ONE) from error
    if described is None:
        return _found(file, lambda: unwrapped(tensors, anchors=anchors))
    try:
        parsed = json.loads(described)
    except (ValueError, RecursionError) as error:
        raise VitcError(f"The description inside {file} is not JSON.", _GET_ONE) from error
    return Contents(tensors, json_object(file, parsed))


def _read_torch(file: Path, ema: bool, anchors: Sequence[str] | None) -> Contents:
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
            program = _program(archive.namelist())
        if program is not None:
            raise VitcError(
                f"{file} is {program}, which is a program; wanted a state dict.",
                "Where it was made, save `model.state_dict()` with torch.save instead.",
            )
        if unpacked > _MAX_BYTES:
            raise VitcError(
                f"{file} unpacks to {unpacked} bytes; vitc reads up to {_MAX_BYTES}.",
                "Drop the optimizer state from it.",
            )
    beyond = _excess(file)
    if beyond is not None:
        raise VitcError(
            f"{file} {beyond}.", "Save its state dict alone with torch.save, or as .safetensors."
        )
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"it holds {found[1]} objects" if found else "it is damaged, or no PyTorch file"
        raise VitcError(
            f"{file} cannot be read safely: {what}.",
            "Save its state dict alone with torch.save, or as .safetensors.",
        ) from error
    except Exception as error:  # whatever a damaged pickle makes the unpickler raise
        raise VitcError(f"{file} is not a whole PyTorch checkpoint.", _GET_ONE) from error
    return _found(file, lambda: find_state_dict(content, ema=ema, anchors=anchors))


def _found(file: Path, find: Callable[[], StateDict]) -> Contents:
    try:
        state = find()
    except VitcError as error:
        raise VitcError(f"{file} {error.message}", error.hint) from error
    return Contents(state.tensors, notes=state.notes)


def _program(names: Sequence[str]) -> str | None:
    """What kind of program an archive of PyTorch is; None if it is a pickle of tensors."""
    inside = {name.partition("/")[2] for name in names}
    if "constants.pkl" in inside and any(name.startswith("code/") for name in inside):
        return "a TorchScript archive"
    return "an archive of torch.export" if "archive_format" in inside else None


def _excess(file: Path) -> str | None:
    """What of the pickles of a file is beyond the limits."""
    with ExitStack() as opened:
        streams: list[IO[bytes]]
        if zipfile.is_zipfile(file):
            archive = opened.enter_context(zipfile.ZipFile(file))
            names = [name for name in archive.namelist() if name.endswith(".pkl")]
            streams = [opened.enter_context(archive.open(name)) for name in names]
        else:
            streams = [opened.enter_context(file.open("rb"))] * _LEGACY_PICKLES
        return excess(streams)


def json_object(file: Path, value: object) -> dict[str, Any]:
    """What a file describes.

    Raises:
        VitcError: If it is no JSON object.
    """
    if not isinstance(value, dict):
        raise VitcError(f"The description inside {file} is not a JSON object.", _GET_ONE)
    return value
