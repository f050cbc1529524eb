"""Checkpoints of other programs, and vitc's own, as full-precision twins."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from vitc.errors import VitcError
from vitc.models.architectures import TWINS
from vitc.models.architectures.twin import TwinConfig
from vitc.models.build import build_network
from vitc.models.checkpoint import file_sha256, load
from vitc.models.described import LARGEST, shown
from vitc.models.fitting import fill
from vitc.models.network import LoadReport, Network
from vitc.models.preprocessing import Preprocessing
from vitc.models.tensor_files import Contents, read_contents, whole
from vitc.models.twins.names import Renamed, rename
from vitc.models.twins.sources import SOURCES, Source

__all__ = ["Understood", "load_teacher", "load_twin", "understand"]

_TENSORS: Final = ("model.safetensors", "pytorch_model.bin")
_CONFIG: Final = "config.json"
_PREPROCESSOR: Final = "preprocessor_config.json"
_MOST_BYTES: Final = 16 << 20
_LISTED: Final = 12
_IMAGE_SIZE: Final = 224
_INTERPOLATION: Final = {0: "nearest", 2: "bilinear", 3: "bicubic"}
"""Numbers of Pillow."""


def load_twin(path: str | os.PathLike[str], *, ema: bool = False) -> Network:
    """Read a full-precision network: one of vitc's own, or of a program of `SOURCES`.

    What shapes do not tell (heads, window, constants of norms) is read from ``config.json`` beside
    ``model.safetensors``, or from ``NAME.json`` beside ``NAME.safetensors``; where there is none,
    what is usual in the source is assumed, and said.

    Args:
        path: A checkpoint, or a folder with ``model.safetensors`` or ``pytorch_model.bin``.
        ema: Take the averaged weights, ``state_dict_ema`` of a file of torch.save.

    Returns:
        The twin in eval mode; `load_report` says what was skipped and what was assumed.

    Raises:
        VitcError: If there is no such file, it is damaged or of no known source, tensors are
            missing or too many, or its configuration contradicts its tensors.
    """
    file = _file(Path(path))
    with whole(file):
        contents = read_contents(file, ema=ema, anchors=_anchors())
        if contents.described:
            model = load(file)
            if not isinstance(model.config, TwinConfig):
                raise VitcError(
                    f"{file} is a binarized {model.config.arch}, wanted a full-precision network.",
                    "Train one with `vitc train --full-precision`.",
                )
            return model
        return _foreign(file, contents)


def load_teacher(path: str | os.PathLike[str]) -> Network:
    """Read a network to learn from: a twin of any source, or a binarized network.

    Raises:
        VitcError: As `load_twin` and `vitc.load`.
    """
    file = _file(Path(path))
    with whole(file):
        contents = read_contents(file, anchors=_anchors())
        if not contents.described and _source(contents.tensors) is not None:
            return _foreign(file, contents)
    return load(file)


def _anchors() -> list[str]:
    return sorted({source.anchor for source in SOURCES.values()}, key=len, reverse=True)


def _file(path: Path) -> Path:
    if not path.is_dir():
        return path
    found = next((path / name for name in _TENSORS if (path / name).is_file()), None)
    if found is None:
        raise VitcError(
            f"{path} has no {' and no '.join(_TENSORS)}.",
            "Name a checkpoint file, or the folder of a model of the Hub.",
        )
    return found


def _source(tensors: Mapping[str, Tensor]) -> Source | None:
    names = tensors.keys()
    return next((source for source in SOURCES.values() if source.fits(names)), None)


@dataclass(frozen=True)
class Understood:
    """A state dict of another program.

    Attributes:
        source: The program.
        config: Of its network.
        tensors: By the names of the twin.
        notes: Sentences about what was skipped and assumed.
    """

    source: Source
    config: TwinConfig
    tensors: dict[str, Tensor]
    notes: tuple[str, ...]


def understand(
    file: Path, tensors: Mapping[str, Tensor], described: Mapping[str, Any]
) -> Understood:
    """Find out what a state dict is, by its names and shapes and what stands beside it.

    Args:
        file: Where it comes from, for errors.
        tensors: By the names of the file, without prefixes.
        described: What its configuration file states; empty if there is none.

    Raises:
        VitcError: If it is of no known source, has too few tensors or too many, or they contradict
            the configuration.
    """
    source = _source(tensors)
    if source is None:
        raise VitcError(
            f"{file} is of no source that vitc knows ({', '.join(SOURCES)}); it has "
            f"{_listing(tensors)}.",
            "Convert it to one of these, or load a binarized checkpoint with vitc.load.",
        )
    skipped = {name: source.why_skipped(name) for name in tensors}
    renamed = rename({n: tensors[n] for n, why in skipped.items() if why is None}, source.names)
    config, assumed = _configuration(file, source, renamed, described)
    with torch.device("meta"):
        wanted = build_network(config).state_dict().keys()
    strange = [_theirs(source, name) for name in renamed.tensors if name not in wanted]
    missing = [
        theirs
        for name in wanted
        if name not in renamed.tensors
        for theirs in renamed.incomplete.get(name, (_theirs(source, name),))
    ]
    _refuse(file, source, strange=(*renamed.strange, *strange), missing=missing)
    source.reordered(renamed.tensors, lambda name: _heads(config, name))
    notes = (f"the names are those of {source.name}", *_left(skipped), *assumed)
    return Understood(source, config, renamed.tensors, notes)


def _foreign(file: Path, contents: Contents) -> Network:
    described = _described(file)
    found = understand(file, contents.tensors, described)
    preprocessing, looked = _preprocessing(file, described, found.config)
    with torch.device("meta"):
        model = build_network(found.config, preprocessing, _labels(described, found.config))
    hint = f"Check that it is a whole checkpoint of {found.source.name}."
    fill(file, model, found.tensors, hint)
    model.source_path = file
    model.source_sha256 = file_sha256(file)
    model.load_report = LoadReport({}, 0, (*contents.notes, *found.notes, *looked))
    return model


def _refuse(file: Path, source: Source, *, strange: Iterable[str], missing: Iterable[str]) -> None:
    found = [
        f"{what}: {_listing(sorted(names))}"
        for what, listed in (("missing", missing), ("unexpected", strange))
        if (names := list(listed))
    ]
    if found:
        raise VitcError(
            f"The tensors of {file} do not fit a network of {source.name}: {'; '.join(found)}.",
            "Check that it is a whole classifier with its head, and no variant of the network.",
        )


def _theirs(source: Source, name: str) -> str:
    """A tensor as the file would name it."""
    found = (entry.backward(name) for entry in source.names)
    return next((theirs for theirs in found if theirs is not None), name)


def _left(skipped: Mapping[str, str | None]) -> list[str]:
    kinds: dict[str, list[str]] = {}
    for name, why in skipped.items():
        if why is not None:
            kinds.setdefault(why, []).append(name)
    return [f"skipped {why}: {_listing(names)}" for why, names in kinds.items()]


def _listing(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - _LISTED} more" if len(listed) > _LISTED else ""
    return ", ".join(listed[:_LISTED]) + more


class _Shapes(dict[str, tuple[int, ...]]):
    """Shapes by our names; one that is missing is an error by its name in the file."""

    def __init__(self, file: Path, source: Source, renamed: Renamed) -> None:
        super().__init__({name: tuple(tensor.shape) for name, tensor in renamed.tensors.items()})
        self._file, self._of, self._strange = file, source, renamed.strange

    def __missing__(self, name: str) -> tuple[int, ...]:
        missing = (_theirs(self._of, name),)
        _refuse(self._file, self._of, strange=self._strange, missing=missing)
        raise KeyError(name)


def _configuration(
    file: Path, source: Source, renamed: Renamed, described: Mapping[str, Any]
) -> tuple[TwinConfig, list[str]]:
    """What shapes tell, what the file states, and what is assumed, in sentences."""
    entry = TWINS[source.twin]
    try:
        derived = entry.sizes(_Shapes(file, source, renamed))
    except (ValueError, IndexError, ZeroDivisionError) as error:
        raise VitcError(
            f"The tensors of {file} have not the shapes of a network of {source.name}.",
            "Check that it is a whole classifier, and no variant of the network.",
        ) from error
    stated = source.settings(described)
    differing = [
        f"{name} is {shown(stated[name])} there and {value} by the tensors"
        for name, value in derived.items()
        if name in stated and stated[name] != value
    ]
    if differing:
        raise VitcError(
            f"The configuration beside {file} is that of another network: {'; '.join(differing)}.",
            "Put the configuration beside it that it was saved with.",
        )
    values: dict[str, Any] = {**source.assumed, **derived, **stated}
    notes = [
        f"no {name} is stated: {value} is assumed"
        for name, value in source.assumed.items()
        if name == "bn_eps" and name not in stated
    ]
    if "image_size" not in values:
        values["image_size"] = _IMAGE_SIZE
        notes.append(f"no image size is stated: {_IMAGE_SIZE} px is assumed")
    if "heads" not in values:
        widths = derived["widths"] if "widths" in derived else (derived["width"],)
        heads = tuple(width // source.head_width for width in widths)
        if any(width % source.head_width for width in widths):
            raise VitcError(
                f"{file} does not say how many attention heads there are, and its width "
                f"{'/'.join(map(str, widths))} is no multiple of {source.head_width}.",
                f'Put a {_CONFIG} beside it that states them, such as {{"num_heads": ..}}.',
            )
        values["heads"] = heads if "widths" in derived else heads[0]
        listed = "/".join(map(str, heads))
        notes.append(f"no heads are stated: {listed} of {source.head_width} channels are assumed")
    try:
        config: TwinConfig = entry.config(**values)
    except VitcError as error:
        raise VitcError(f"{file}: {error.message}", error.hint) from error
    return config, notes


def _heads(config: TwinConfig, name: str) -> int:
    """Heads of the attention that a tensor belongs to."""
    heads: Any = getattr(config, "heads")  # noqa: B009 - each twin's own field
    return int(heads[int(name.split(".")[1])] if isinstance(heads, tuple) else heads)


def _described(file: Path) -> dict[str, Any]:
    """The configuration beside a file; empty if there is none."""
    own = file.with_suffix(".json")
    beside = file.with_name(_CONFIG)
    if own.is_file():
        return _json(own)
    return _json(beside) if file.name in _TENSORS and beside.is_file() else {}


def _json(file: Path) -> dict[str, Any]:
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise VitcError(f"{file} has more than {_MOST_BYTES} bytes, and is no configuration.")
        value = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise VitcError(f"{file} cannot be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise VitcError(f"{file} is not JSON.", "Copy it again from where it came.") from error
    if not isinstance(value, dict):
        raise VitcError(f"{file} is not a JSON object.", "Copy it again from where it came.")
    return value


def _labels(described: Mapping[str, Any], config: TwinConfig) -> list[str] | None:
    """Names of the classes, if the file has other ones than numbers."""
    named = described.get("id2label")
    listed = described.get("label_names")
    if isinstance(named, Mapping):
        listed = [named.get(str(index)) for index in range(config.classes)]
        if listed == [f"LABEL_{index}" for index in range(config.classes)]:
            return None
    if not isinstance(listed, list) or len(listed) != config.classes:
        return None
    return listed if all(isinstance(label, str) for label in listed) else None


def _preprocessing(
    file: Path, described: Mapping[str, Any], config: TwinConfig
) -> tuple[Preprocessing | None, list[str]]:
    """How images become inputs; None for what is usual, and sentences about it."""
    side = config.image_size
    pretrained = described.get("pretrained_cfg")
    beside = file.with_name(_PREPROCESSOR)
    found: dict[str, Any]
    if file.name in _TENSORS and beside.is_file():
        stated = _json(beside)
        resized, crop = _side(stated.get("size")), stated.get("do_center_crop", False)
        found = {
            "resize": resized if crop and resized else side,
            "interpolation": _INTERPOLATION.get(stated.get("resample", 2)),
            "mean": stated.get("image_mean"),
            "std": stated.get("image_std"),
        }
    elif isinstance(pretrained, Mapping) and isinstance(side, int):
        share: Any = pretrained.get("crop_pct")
        found = {
            "resize": math.floor(side / share) if _share(share) else side,
            "interpolation": pretrained.get("interpolation"),
            "mean": pretrained.get("mean"),
            "std": pretrained.get("std"),
        }
    else:
        made = Preprocessing.for_image_size(side)
        said = f"that of ImageNet is assumed, {made.crop} px of {made.resize}"
        return made, [f"no preprocessing is stated: {said}"]
    given: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in found.items()
        if value is not None
    }
    try:
        return Preprocessing(crop=side, **given), []
    except VitcError as error:
        raise VitcError(
            f"The preprocessing beside {file} does not hold: {error.message}", error.hint
        ) from error


def _share(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value <= 1


def _side(size: Any) -> int | None:
    """Of an image that is resized, as a number, or as height and width, or as its shorter side."""
    values = list(size.values()) if isinstance(size, Mapping) else [size]
    good = values and all(type(v) is int and 1 <= v <= LARGEST for v in values)
    return min(values) if good else None
