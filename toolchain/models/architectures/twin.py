"""What the configurations of full-precision twins have in common, and what a twin costs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Final, Self, TypeVar

from vitc.errors import VitcError
from vitc.models.account import LayerAccount, in_fp32
from vitc.models.config import NetworkConfig
from vitc.models.described import LARGEST, number, shown

_Config = TypeVar("_Config", bound="TwinConfig")

__all__ = [
    "StagedTwinConfig",
    "TwinConfig",
    "attention",
    "classifier",
    "halvings",
    "itself",
    "mlp",
    "norm",
    "projection",
    "values",
]

_SCHEME: Final = "float"
MOST_VALUES: Final = 1 << 28
_FLOAT: Final = "a full-precision network"


@dataclass(frozen=True, kw_only=True)
class TwinConfig(NetworkConfig):
    """A network without a binary layer; what the fields of binarized ones say is fixed.

    Attributes:
        side_eps: Constant of the norms beside the blocks: of embeddings, between stages, of PVT's
            reduced tokens. ``bn_eps`` is that of the blocks' norms and of the last.

    Raises:
        VitcError: If the sizes contradict each other, or the fields speak of bits.
    """

    scheme: str = _SCHEME
    weight_bits: int = 32
    side_eps: float = 1e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.si or self.weight_bits != 32 or self.scheme != _SCHEME:
            raise VitcError(
                f"A full-precision twin has scheme {_SCHEME}, 32-bit weights and no SI, found "
                f"{shown(self.scheme)}, {self.weight_bits} bits and si {self.si}."
            )
        if not number(self.side_eps) or not self.side_eps > 0:
            raise VitcError(f"side_eps must be positive, found {shown(self.side_eps)}.")

    @property
    def binarized(self) -> bool:
        """See `NetworkConfig.binarized`."""
        return False

    def _check_memory(self, tokens: int, values: int) -> None:
        """Refuse what a file may state and no network is.

        Args:
            tokens: Of a stage.
            values: Most numbers a token, of its channels or scores.
        """
        if tokens * values > MOST_VALUES:
            raise VitcError(
                f"{tokens} tokens with {values} numbers each are more than vitc takes.",
                "Choose a smaller image.",
            )

    def _fixed(self, **wanted: object) -> None:
        """Refuse sizes that a twin does not change."""
        named = [f"{name} {shown(value)}" for name, value in wanted.items() if value]
        if named:
            raise VitcError(
                f"A full-precision {self.arch} has no {named[0]} to choose.",
                "Leave it away; its sizes are those of the preset.",
            )


@dataclass(frozen=True, kw_only=True)
class StagedTwinConfig(TwinConfig):
    """A twin of several stages; each tuple has an entry a stage.

    Attributes:
        widths: C, channels of a token.
        depths: Blocks.
        heads: h, attention heads; the head width is C / h.
        hidden: Hidden channels of the MLP.

    Raises:
        VitcError: If the sizes contradict each other.
    """

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    hidden: tuple[int, ...]

    per_stage: ClassVar[tuple[str, ...]] = ("widths", "depths", "heads", "hidden")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.per_stage:
            self._check_several(name)
        stages = {name: len(getattr(self, name)) for name in self.per_stage}
        if len(set(stages.values())) > 1:
            counted = ", ".join(f"{name} {count}" for name, count in stages.items())
            raise VitcError(f"The sizes are of different numbers of stages: {counted}.")
        for width, heads in zip(self.widths, self.heads, strict=True):
            if width % heads:
                raise VitcError(f"The width {width} is not a multiple of {heads} heads.")
        _, height, wide = self.input_shape
        self._check_memory(height * wide, 1)

    def _check_several(self, name: str) -> None:
        values = getattr(self, name)
        if not isinstance(values, tuple) or not values or not all(map(_size, values)):
            raise VitcError(
                f"{name} must be positive integers of at most {LARGEST}, found {shown(values)}."
            )

    @property
    def blocks(self) -> int:
        """Blocks of all stages."""
        return sum(self.depths)

    @property
    def widest(self) -> int:
        """Channels of a token where it has most."""
        return max(self.widths)

    def shape(self) -> str:
        """The sizes of its blocks in a few words."""

        def listed(values: tuple[int, ...]) -> str:
            return "/".join(map(str, values))

        return (
            f"{listed(self.depths)} blocks, width {listed(self.widths)}, "
            f"{listed(self.heads)} heads, hidden {listed(self.hidden)}"
        )

    def replace(
        self,
        *,
        image_size: Any = None,
        classes: int | None = None,
        **others: Any,
    ) -> Self:
        """This configuration with another image or other classes.

        Raises:
            VitcError: If sizes contradict each other, or another is named.
        """
        self._fixed(**others)
        changed = {"image_size": image_size, "classes": classes}
        return dataclasses.replace(
            self, **{name: value for name, value in changed.items() if value is not None}
        )


def itself(config: _Config) -> _Config:
    """A twin is its own."""
    return config


def _size(value: object) -> bool:
    return type(value) is int and 1 <= value <= LARGEST


def halvings(config: StagedTwinConfig, map_size: tuple[int, int]) -> list[tuple[int, int]]:
    """Maps of the stages, each half of the one before.

    Raises:
        VitcError: If a side is odd where it must be halved.
    """
    maps = [map_size]
    for _ in pairwise(config.widths):
        height, width = maps[-1]
        if height % 2 or width % 2:
            raise VitcError(
                f"A map of {height} x {width} tokens is not halved between stages.",
                "Choose an image size that can be halved once a stage.",
            )
        maps.append((height // 2, width // 2))
    return maps


def projection(
    name: str, *taps: str, rows: int, inputs: int, outputs: int, bias: bool = True
) -> LayerAccount:
    """A linear, or a convolution as what it is for each place that it makes."""
    weights = inputs * outputs
    return in_fp32(
        name,
        *taps,
        parameters=weights + (outputs if bias else 0),
        fp_macs=rows * weights,
        why=_FLOAT,
    )


def norm(name: str, *taps: str, width: int) -> LayerAccount:
    """A layer norm."""
    return in_fp32(name, *taps, parameters=2 * width, why=_FLOAT)


def values(name: str, *taps: str, count: int) -> LayerAccount:
    """Trained values that are added: tokens, positions, biases of scores."""
    return in_fp32(name, *taps, parameters=count, why=_FLOAT)


def attention(
    name: str, *, tokens: int, width: int, keys: int, biases: int = 0
) -> Iterator[LayerAccount]:
    """A norm, softmax attention of each token to `keys` others, and its projection.

    Args:
        name: Of the layer, such as ``blocks.0.attn``.
        tokens: Of an image.
        width: Channels.
        keys: That a token attends.
        biases: Trained biases of scores.
    """
    block = name.rpartition(".")[0]
    tap = f"{name}.output"
    yield norm(f"{block}.norm1", tap, width=width)
    yield projection(f"{name}.qkv", tap, rows=tokens, inputs=width, outputs=3 * width)
    yield in_fp32(
        f"{name}.context", tap, parameters=biases, fp_macs=2 * tokens * keys * width, why=_FLOAT
    )
    yield projection(f"{name}.proj", tap, rows=tokens, inputs=width, outputs=width)


def mlp(name: str, *, tokens: int, width: int, hidden: int) -> Iterator[LayerAccount]:
    """A norm and an MLP of two linears."""
    block = name.rpartition(".")[0]
    tap = f"{name}.output"
    yield norm(f"{block}.norm2", tap, width=width)
    yield projection(f"{name}.fc1", tap, rows=tokens, inputs=width, outputs=hidden)
    yield projection(f"{name}.fc2", tap, rows=tokens, inputs=hidden, outputs=width)


def classifier(*, width: int, classes: int, heads: int = 1) -> Iterator[LayerAccount]:
    """The last norm, and one head or several."""
    yield norm("norm", "logits", width=width)
    yield projection("head", "logits", rows=1, inputs=width, outputs=classes)
    if heads > 1:
        yield projection("head_dist", "logits", rows=1, inputs=width, outputs=classes)
