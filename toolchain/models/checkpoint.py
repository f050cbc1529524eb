"""Reading and writing checkpoints.

vitc's own files are ``.safetensors`` whose metadata key ``vitc`` holds JSON with the configuration,
preprocessing, labels and history. Official files (``.pth.tar``, ``.pth``) and plain state dicts in
``.safetensors`` carry none of that; their configuration follows from the shapes, and what wrappers
put around them is taken off, see `vitc.models.state_dicts`. Files are read safely, see
`vitc.models.tensor_files`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from vitc.errors import VitcError
from vitc.models.architectures import config_from_dict, config_from_shapes
from vitc.models.binary_linear import BinaryLinear, FrozenBinaryLinear, binary_modules
from vitc.models.build import build_network
from vitc.models.config import NetworkConfig
from vitc.models.described import MOST_BLOCKS
from vitc.models.fitting import fill
from vitc.models.folder import checkpoint_in, described_beside
from vitc.models.network import LoadReport, Network
from vitc.models.preprocessing import Preprocessing
from vitc.models.schemes import scheme as known_scheme
from vitc.models.stated import Stated
from vitc.models.tensor_files import METADATA_KEY, Contents, json_object, read_contents, whole
from vitc.outputs import FileOutput, claim_file, explained

__all__ = ["described_by", "file_sha256", "load", "save", "write_checkpoint"]

_FITS: Final = "Check that the file is an SI-BiViT checkpoint and is whole."
_GET_ONE: Final = "Make a fresh one with `vitc new`, or copy the file again."


def load(
    path: str | os.PathLike[str],
    *,
    ema: bool = False,
    scheme: str | None = None,
    weight_bits: Literal[1, 32] | None = None,
    stated: Stated | None = None,
) -> Network:
    """Read a checkpoint into a model in eval mode.

    Args:
        path: ``.safetensors``, or an official ``.pth.tar`` or ``.pth``; or a folder that
            `vitc.save_pretrained` wrote.
        ema: Take the averaged weights, ``state_dict_ema`` of an official file.
        scheme: Binarization scheme of a file that does not say (default: what the file says, else
            bibert).
        weight_bits: 32 if the file is from the 32W1A step, whose names and shapes are the same
            (default: what the file says, else 1).
        stated: Labels and preprocessing, before those of the file.

    Returns:
        The model, with `config`, `preprocessing`, `labels`, `history`, `source_path`,
        `source_sha256` and `load_report` set. The report says what was assumed.

    Raises:
        VitcError: If the file is missing, damaged, not a checkpoint of this network, or holds
            missing, unexpected, mis-shaped or non-finite tensors, all of which are named.
    """
    file = checkpoint_in(Path(path))
    with whole(file):
        return _load(file, ema, scheme, weight_bits, stated or Stated())


def _load(
    file: Path,
    ema: bool,
    scheme: str | None,
    weight_bits: Literal[1, 32] | None,
    stated: Stated,
) -> Network:
    contents = read_contents(file, ema=ema)
    if not contents.described:
        contents = replace(contents, described=described_beside(file))
    config = _configuration(file, contents, scheme, weight_bits)
    described = contents.described
    own = "preprocessing" in described
    usual = (
        Preprocessing.from_dict(json_object(file, described["preprocessing"]))
        if own
        else Preprocessing.for_image_size(config.image_size)
    )
    preprocessing = stated.preprocessing(usual)
    labels = _labels(file, described.get("labels")) if stated.labels is None else stated.labels
    if stated.labels is not None and len(stated.labels) != config.classes:
        raise VitcError(
            f"{len(stated.labels)} labels are stated, and {file} has {config.classes} classes.",
            "Name every class once, in the order of the logits.",
        )
    with torch.device("meta"):
        model = build_network(config, preprocessing, labels)
    fill(file, model, contents.tensors, _FITS)
    model.history = json_object(file, described.get("history") or {})
    model.source_path = file
    model.source_sha256 = file_sha256(file)
    described_itself = "config" in described
    notes = list(contents.notes)
    if not described_itself:
        notes += _assumed(config, scheme, weight_bits, labels)
    if not own and (rest := stated.assumed(preprocessing)):
        notes.append(rest)
    model.load_report = _report(model, tuple(notes), described_itself)
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


def described_by(model: Network) -> dict[str, Any]:
    """What a checkpoint says beside its tensors, as JSON values."""
    return {
        "config": model.config.to_dict(),
        "preprocessing": model.preprocessing.to_dict(),
        "labels": None if model.labels is None else list(model.labels),
        "history": model.history,
    }


def write_checkpoint(model: Network, output: FileOutput) -> None:
    """Write a model to where there is a claim.

    Raises:
        VitcError: If the model is frozen, or the file cannot be written.
    """
    if any(isinstance(m, FrozenBinaryLinear) for m in binary_modules(model).values()):
        raise VitcError(
            "A frozen model has no latent weights to save.", "Save the model it was frozen from."
        )
    if model.config.rounded:
        raise VitcError(
            f"A network with {model.config.rounded} is no checkpoint: what it was rounded from is "
            "gone.",
            "Save the network that it was made from; `vitc export` makes it again.",
        )
    described = described_by(model)
    tensors = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    # One key, since safetensors writes several in no fixed order and the bytes should not vary.
    metadata = {METADATA_KEY: json.dumps(described, sort_keys=True)}
    with output.aside() as part, explained(output.named, SafetensorError):
        save_file(tensors, part, metadata=metadata)


def _configuration(
    file: Path, contents: Contents, scheme: str | None, weight_bits: int | None
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
        config = config_from_dict(json_object(file, stated))
    except (VitcError, TypeError) as error:
        raise VitcError(f"{file}: its configuration does not hold: {error}", _GET_ONE) from error
    if scheme is not None and scheme != config.scheme:
        raise VitcError(f"{file} was made with scheme {config.scheme}, not {scheme}.")
    if config.rounded:
        raise VitcError(
            f"{file} states {config.rounded}, which only exported files have.",
            _GET_ONE,
        )
    if config.blocks > MOST_BLOCKS:
        raise VitcError(f"{file} states {config.blocks} blocks; vitc reads up to {MOST_BLOCKS}.")
    return config if weight_bits is None else replace(config, weight_bits=weight_bits)


def _labels(file: Path, value: object) -> Sequence[str] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(label, str) for label in value):
        raise VitcError(f"The labels inside {file} are not a list of names.", _GET_ONE)
    return value


def _report(model: Network, notes: tuple[str, ...], described: bool) -> LoadReport:
    zeros: dict[str, int] = {}
    weights = 0
    for name, module in binary_modules(model).items():
        if isinstance(module, BinaryLinear) and module.weight_bits == 1:
            weights += module.weight.numel()
            count = int((module.centred() == 0).sum())
            if count:
                zeros[name] = count
    return LoadReport(zeros, weights, notes, described)


def _assumed(
    config: NetworkConfig,
    scheme: str | None,
    weight_bits: int | None,
    labels: Sequence[str] | None,
) -> list[str]:
    """What a state dict does not say, and nobody did."""
    own = config.weight_bits
    notes = {
        f"no binarization scheme is stated: --scheme {config.scheme} is assumed": scheme,
        f"no bits of weights are stated: --weight-bits {own} is assumed": weight_bits,
        "no labels are stated: classes are numbers, unless --labels names them": labels,
    }
    return [note for note, stated in notes.items() if stated is None]


def file_sha256(file: Path) -> str:
    """SHA-256 of the bytes of a file, hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
