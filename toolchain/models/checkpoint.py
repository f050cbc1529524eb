"""Reading and writing checkpoints.

vitc's own files are ``.safetensors`` whose metadata key ``vitc`` holds JSON with the configuration,
preprocessing, labels and history. Official files (``.pth.tar``, ``.pth``) and plain state dicts in
``.safetensors`` carry none of that; their configuration follows from the shapes, and what wrappers
put around them is taken off, see `vitc.models.state_dicts`. A file is never unpickled unsafely:
only tensors, plain containers and ``argparse.Namespace`` are let through.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pickle
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, Final, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vitc.errors import VitcError
from vitc.models.architectures import config_from_dict, config_from_shapes
from vitc.models.binary_linear import BinaryLinear, FrozenBinaryLinear, binary_modules
from vitc.models.config import NetworkConfig
from vitc.models.described import MOST_BLOCKS
from vitc.models.network import LoadReport, Network, build_network
from vitc.models.pickle_limits import excess
from vitc.models.preprocessing import Preprocessing
from vitc.models.schemes import scheme as known_scheme
from vitc.models.state_dicts import StateDict, find_state_dict, unwrapped
from vitc.outputs import FileOutput, claim_file, explained

__all__ = ["load", "save", "write_checkpoint"]

METADATA_KEY: Final = "vitc"
_MAX_BYTES: Final = 4 << 30
_MAX_HEADER: Final = 64 << 20
_LEGACY_PICKLES: Final = 5
"""At the start of a file that is no archive: magic, version, system, tensors, their keys."""

_LISTED: Final = 12
_FLOATS: Final = frozenset({torch.float16, torch.bfloat16, torch.float32, torch.float64})
_TORCH_SUFFIXES: Final = (".pth.tar", ".pth", ".pt", ".ckpt", ".bin")
_GET_ONE = "Make a fresh one with `vitc new`, or copy the file again."


@dataclass(frozen=True)
class _Contents:
    tensors: dict[str, Tensor]
    described: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def load(
    path: str | os.PathLike[str],
    *,
    ema: bool = False,
    scheme: str | None = None,
    weight_bits: Literal[1, 32] | None = None,
) -> Network:
    """Read a checkpoint into a model in eval mode.

    Args:
        path: ``.safetensors``, or an official ``.pth.tar`` or ``.pth``.
        ema: Take the averaged weights, ``state_dict_ema`` of an official file.
        scheme: Binarization scheme of a file that does not say (default: what the file says, else
            bibert).
        weight_bits: 32 if the file is from the 32W1A step, whose names and shapes are the same
            (default: what the file says, else 1).

    Returns:
        The model, with `config`, `preprocessing`, `labels`, `history`, `source_path`,
        `source_sha256` and `load_report` set.

    Raises:
        VitcError: If the file is missing, damaged, not a checkpoint of this network, or holds
            missing, unexpected, mis-shaped or non-finite tensors, all of which are named.
    """
    file = Path(path)
    try:
        return _load(file, ema, scheme, weight_bits)
    except VitcError:
        raise
    except Exception as error:  # whatever a damaged file makes torch and the zip reader raise
        first = str(error).strip().partition("\n")[0]
        raise VitcError(f"{file} is not a whole checkpoint: {first}", _GET_ONE) from error


def _load(file: Path, ema: bool, scheme: str | None, weight_bits: Literal[1, 32] | None) -> Network:
    _check_file(file)
    if file.name.lower().endswith(_TORCH_SUFFIXES):
        contents = _read_torch(file, ema)
    else:
        if ema:
            raise VitcError(
                f"{file} is a safetensors file, which has one state dict and no EMA copy.",
                "Leave the EMA option away.",
            )
        contents = _read_safetensors(file)

    config = _configuration(file, contents, scheme, weight_bits)
    described = contents.described
    preprocessing = None
    if "preprocessing" in described:
        preprocessing = Preprocessing.from_dict(_mapping(file, described["preprocessing"]))
    with torch.device("meta"):
        model = build_network(config, preprocessing, _labels(file, described.get("labels")))
    _check_tensors(file, model, contents.tensors)
    model.load_state_dict(_assignable(model, contents.tensors), strict=True, assign=True)
    model.requires_grad_(True).eval()
    model.history = _mapping(file, described.get("history") or {})
    model.source_path = file
    model.source_sha256 = _sha256(file)
    assumed = () if preprocessing is not None else (_assumed(model.preprocessing),)
    model.load_report = _report(model, (*contents.notes, *assumed))
    return model


def save(model: Network, path: str | os.PathLike[str], *, force: bool = False) -> None:
    """Write a model as vitc's own ``.safetensors``, complete or not at all.

    Args:
        model: A model with latent weights.
        path: Ends in ``.safetensors``; its folder exists.
        force: Whether an existing file may be replaced.

    Raises:
        VitcError: If the model is frozen, the name does not fit, or the file exists or cannot be
            written.
    """
    file = Path(path)
    if file.suffix != ".safetensors":
        raise VitcError(
            f"A checkpoint is written as .safetensors, found {file.name!r}.",
            f"Write to {file.stem}.safetensors.",
        )
    with claim_file(file, force=force) as output:
        write_checkpoint(model, output)


def write_checkpoint(model: Network, output: FileOutput) -> None:
    """Write a model to where there is a claim.

    Raises:
        VitcError: If the model is frozen, or the file cannot be written.
    """
    if any(isinstance(m, FrozenBinaryLinear) for m in binary_modules(model).values()):
        raise VitcError(
            "A frozen model has no latent weights to save.", "Save the model it was frozen from."
        )
    described = {
        "config": model.config.to_dict(),
        "preprocessing": model.preprocessing.to_dict(),
        "labels": None if model.labels is None else list(model.labels),
        "history": model.history,
    }
    tensors = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    # One key, since safetensors writes several in no fixed order and the bytes should not vary.
    metadata = {METADATA_KEY: json.dumps(described, sort_keys=True)}
    with output.aside() as part, explained(output.named, SafetensorError):
        save_file(tensors, part, metadata=metadata)


def _check_file(file: Path) -> None:
    if file.is_dir():
        raise VitcError(
            f"{file} is a directory, wanted a checkpoint file.",
            "Name the .safetensors or .pth.tar file in it.",
        )
    if not file.is_file():
        raise VitcError(f"There is no checkpoint {file}.", "Make one with `vitc new`.")
    if not file.name.lower().endswith((".safetensors", *_TORCH_SUFFIXES)):
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


def _read_safetensors(file: Path) -> _Contents:
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
        return _found(file, lambda: unwrapped(tensors))
    try:
        parsed = json.loads(described)
    except (ValueError, RecursionError) as error:
        raise VitcError(f"The description inside {file} is not JSON.", _GET_ONE) from error
    return _Contents(tensors, _mapping(file, parsed))


def _read_torch(file: Path, ema: bool) -> _Contents:
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
    return _found(file, lambda: find_state_dict(content, ema=ema))


def _found(file: Path, find: Callable[[], StateDict]) -> _Contents:
    try:
        state = find()
    except VitcError as error:
        raise VitcError(f"{file} {error.message}", error.hint) from error
    return _Contents(state.tensors, notes=state.notes)


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


def _configuration(
    file: Path, contents: _Contents, scheme: str | None, weight_bits: int | None
) -> NetworkConfig:
    stated = contents.described.get("config")
    if stated is None:
        known_scheme(scheme or "bibert")
        shapes = {name: tuple(tensor.shape) for name, tensor in contents.tensors.items()}
        try:
            return config_from_shapes(shapes, scheme or "bibert", weight_bits or 1)
        except VitcError as error:
            raise VitcError(f"{file}: {error.message}", error.hint) from error
    try:
        config = config_from_dict(_mapping(file, stated))
    except (VitcError, TypeError) as error:
        raise VitcError(f"{file}: its configuration does not hold: {error}", _GET_ONE) from error
    if scheme is not None and scheme != config.scheme:
        raise VitcError(f"{file} was made with scheme {config.scheme}, not {scheme}.")
    if config.blocks > MOST_BLOCKS:
        raise VitcError(f"{file} states {config.blocks} blocks; vitc reads up to {MOST_BLOCKS}.")
    return config if weight_bits is None else replace(config, weight_bits=weight_bits)


def _mapping(file: Path, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise VitcError(f"The description inside {file} is not a JSON object.", _GET_ONE)
    return value


def _labels(file: Path, value: object) -> list[str] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(label, str) for label in value):
        raise VitcError(f"The labels inside {file} are not a list of names.", _GET_ONE)
    return value


def _optional(name: str) -> bool:
    return name.endswith(".num_batches_tracked")


def _is_whole(tensor: Tensor) -> bool:
    """Whether each element has its own bytes: a kilobyte can claim a terabyte of zeros."""
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        return False
    return tensor.untyped_storage().nbytes() >= tensor.numel() * tensor.element_size()


def _listing(names: list[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def _check_tensors(file: Path, model: Network, tensors: Mapping[str, Tensor]) -> None:
    wanted = model.state_dict()
    missing = sorted(n for n in wanted if n not in tensors and not _optional(n))
    unexpected = sorted(n for n in tensors if n not in wanted)
    shared = sorted(n for n in tensors if n in wanted and not _optional(n))
    wrong = [
        f"{n} is {tuple(tensors[n].shape)}, wanted {tuple(wanted[n].shape)}"
        for n in shared
        if tensors[n].shape != wanted[n].shape
    ]
    integral = [f"{n} is {tensors[n].dtype}" for n in shared if tensors[n].dtype not in _FLOATS]
    repeated = [n for n in shared if not _is_whole(tensors[n])]
    found = [
        f"{what}: {_listing(names)}"
        for what, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of a wrong shape", wrong),
            ("not floating point", integral),
            ("not stored value by value", repeated),
        )
        if names
    ]
    if found:
        raise VitcError(
            f"The tensors of {file} do not fit the network: {'; '.join(found)}.",
            "Check that the file is an SI-BiViT checkpoint and is whole.",
        )
    broken = [n for n in shared if not torch.isfinite(tensors[n].to(wanted[n].dtype)).all()]
    if broken:
        raise VitcError(
            f"{file} holds NaN, infinite values or values beyond fp32 in {_listing(broken)}.",
            "The training diverged; take an earlier checkpoint.",
        )
    negative = [n for n in shared if n.endswith("running_var") and (tensors[n] < 0).any()]
    if negative:
        raise VitcError(f"{file} holds negative variances in {_listing(negative)}.", _GET_ONE)


def _assignable(model: Network, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name: tensors.get(name, torch.zeros(slot.shape)).to(slot.dtype, copy=True).contiguous()
        for name, slot in model.state_dict().items()
    }


def _report(model: Network, notes: tuple[str, ...]) -> LoadReport:
    zeros: dict[str, int] = {}
    weights = 0
    for name, module in binary_modules(model).items():
        if isinstance(module, BinaryLinear) and module.weight_bits == 1:
            weights += module.weight.numel()
            count = int((module.centred() == 0).sum())
            if count:
                zeros[name] = count
    return LoadReport(zeros, weights, notes)


def _assumed(preprocessing: Preprocessing) -> str:
    return (
        f"no preprocessing is stated: that of ImageNet is assumed, {preprocessing.crop} px of "
        f"{preprocessing.resize}"
    )


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
