"""What an architecture has to say for itself, as data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

from vitc.models.config import NetworkConfig, Preset

if TYPE_CHECKING:
    from vitc.models.account import LayerAccount

__all__ = ["Architecture", "Shapes", "norm_of"]

_Config = TypeVar("_Config", bound=NetworkConfig)

Shapes: TypeAlias = Mapping[str, tuple[int, ...]]
"""Names and shapes of a state dict."""


def norm_of(shapes: Shapes) -> str:
    """The kind of a network's norms: what batch norms of a stream collect is in its state dict."""
    collected = (".norm1.running_mean", ".norm1.running_var", ".norm2.running_mean")
    return "batch" if any(name.endswith(collected) for name in shapes) else "layer"


@dataclass(frozen=True)
class Architecture(Generic[_Config]):
    """One architecture, without PyTorch; its module is in `vitc.models.build`.

    Attributes:
        name: Key in the table and in configurations.
        config: Its configuration.
        presets: Its named networks.
        tensors: Names that the state dict of each of its networks has, and together those of no
            other architecture. Whatever stands before the first of them in a file is a prefix.
        sizes: Shapes of a state dict to the fields of the configuration that follow from them, all
            but ``scheme`` and ``weight_bits``; raises a `VitcError` if they do not fit.
        layers: What each layer costs for one image, in the order of computation.
        twin: Its configuration to that of its full-precision twin, a key of `TWINS`: what a user
            would run instead.
    """

    name: str
    config: type[_Config]
    presets: tuple[Preset, ...]
    tensors: tuple[str, ...]
    sizes: Callable[[Shapes], dict[str, Any]]
    layers: Callable[[_Config], Iterator[LayerAccount]]
    twin: Callable[[_Config], NetworkConfig]
