"""The table of architectures; a new one is its module, its entry and a line here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final

from vitc import names
from vitc.errors import VitcError
from vitc.models.account import Account, of_bytes
from vitc.models.architectures.deit import DEIT
from vitc.models.architectures.entry import Architecture, Shapes
from vitc.models.architectures.float_deit import FLOAT_DEIT
from vitc.models.architectures.float_nest import FLOAT_NEST
from vitc.models.architectures.float_pvt import FLOAT_PVT
from vitc.models.architectures.float_swin import FLOAT_SWIN
from vitc.models.architectures.nest import NEST
from vitc.models.architectures.pvt import PVT
from vitc.models.architectures.retrieval import RETRIEVAL
from vitc.models.architectures.swin import SWIN
from vitc.models.architectures.tasks import DETECTION, SEGMENTATION
from vitc.models.config import NetworkConfig, Preset
from vitc.models.described import shown

__all__ = [
    "ARCHITECTURES",
    "PAIRS",
    "PRESETS",
    "TASKS",
    "TWINS",
    "account",
    "anchors",
    "architecture",
    "config_from_dict",
    "config_from_shapes",
    "named_after",
    "preset",
    "summary",
    "twin_preset",
]

ARCHITECTURES: Final[Mapping[str, Architecture[Any]]] = MappingProxyType(
    {entry.name: entry for entry in (DEIT, SWIN, PVT, NEST)}
)

TWINS: Final[Mapping[str, Architecture[Any]]] = MappingProxyType(
    {entry.name: entry for entry in (FLOAT_DEIT, FLOAT_SWIN, FLOAT_PVT, FLOAT_NEST)}
)
"""Full-precision networks. No file is taken for one of them by its shapes alone; see
`vitc.models.twins.sources`."""

TASKS: Final[Mapping[str, Architecture[Any]]] = MappingProxyType(
    {entry.name: entry for entry in (DETECTION, SEGMENTATION)}
)
"""Networks that give maps of the image, on a trunk of the tables above."""

PRESETS: Final[Mapping[str, Preset]] = MappingProxyType(
    {chosen.name: chosen for entry in ARCHITECTURES.values() for chosen in entry.presets}
)


PAIRS: Final[Mapping[str, Architecture[Any]]] = MappingProxyType({RETRIEVAL.name: RETRIEVAL})
"""Networks of two towers. Their files say what they are."""


def architecture(name: object) -> Architecture[Any]:
    """Look up an architecture, a full-precision twin, a pair of towers, or a task's network.

    Raises:
        VitcError: If there is none of that name; the known ones are listed.
    """
    known = {**ARCHITECTURES, **TWINS, **PAIRS, **TASKS}
    if not isinstance(name, str) or name not in known:
        raise VitcError(f"Unknown architecture {shown(name)}; vitc knows {', '.join(known)}.")
    return known[name]


def account(config: NetworkConfig) -> Account:
    """Cost of a network by layer, in the order of computation."""
    layers = architecture(config.arch).layers(config)
    side: int | None = getattr(config, "patch_size", None)
    if not config.takes_bytes or side is None:
        return Account(tuple(layers))
    patches = math.prod(size // side for size in config.sides)
    values = 3 * side**2
    return Account(tuple(of_bytes(layer, config.embedding, patches, values) for layer in layers))


def anchors() -> list[str]:
    """The tensors that tell where a prefix ends, the longest name first.

    One architecture's name may end like another's, so the first that fits is right.
    """
    return sorted({entry.tensors[0] for entry in ARCHITECTURES.values()}, key=len, reverse=True)


def preset(name: str) -> Preset:
    """Look up a preset.

    Raises:
        VitcError: If there is none of that name; the nearest is named and the known are listed.
    """
    return PRESETS[names.PRESETS.check(name)]


def twin_preset(name: str) -> Preset:
    """The full-precision twin of a preset.

    Raises:
        VitcError: If there is none of that name; the nearest is named and the known are listed.
    """
    binarized = preset(name)
    config: NetworkConfig = architecture(binarized.config.arch).twin(binarized.config)
    return replace(binarized, config=config, summary=f"{binarized.name} in full precision")


def named_after(config: NetworkConfig) -> str:
    """The preset with the same blocks, or the architecture if there is none."""
    same = (entry for entry in PRESETS.values() if entry.config.arch == config.arch)
    return next((each.name for each in same if each.config.shape() == config.shape()), config.arch)


def summary(config: NetworkConfig) -> str:
    """What kind of network it is and the sizes of its blocks, in one line."""
    scheme = f"{config.scheme} with elastic masks" if config.elastic else config.scheme
    kind = f"{scheme}, {'with' if config.si else 'without'} SI"
    embedding = f", {config.embedding} embedding" if config.takes_bytes else ""
    return f"{kind if config.binarized else 'full precision'}{embedding}: {config.shape()}"


def config_from_dict(values: Mapping[str, Any]) -> NetworkConfig:
    """The configuration that a file states.

    Raises:
        VitcError: If the architecture or a field is unknown, one is missing, or sizes contradict
            each other.
    """
    config: NetworkConfig = architecture(values.get("arch", DEIT.name)).config.from_dict(values)
    return config


def config_from_shapes(
    shapes: Shapes, scheme: str = "bibert", weight_bits: int = 1
) -> NetworkConfig:
    """The configuration that the shapes of a state dict imply.

    Args:
        shapes: Tensor name to shape.
        scheme: Binarization scheme; the shapes do not tell.
        weight_bits: 1 or 32; the shapes do not tell.

    Raises:
        VitcError: If it is the state dict of no architecture, or one of its sizes is missing.
    """
    found = [entry for entry in ARCHITECTURES.values() if set(entry.tensors) <= shapes.keys()]
    if not found:
        # The nearest one says what is missing.
        found = [max(ARCHITECTURES.values(), key=lambda entry: len(shapes.keys() & entry.tensors))]
    (entry, *_) = found
    config: NetworkConfig = entry.config(
        **entry.sizes(shapes), scheme=scheme, weight_bits=weight_bits
    )
    return config
