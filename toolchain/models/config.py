"""What every architecture's configuration says, and what a preset is."""

from __future__ import annotations

import dataclasses
import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from vitc.errors import VitcError
from vitc.models.described import (
    LARGEST,
    Sides,
    both,
    checked_sides,
    known_fields,
    number,
    shown,
)
from vitc.models.preprocessing import Preprocessing
from vitc.names import EMBEDDINGS

__all__ = ["NORMS", "NetworkConfig", "Preset"]

_LARGEST_CODE: Final = 255

NORMS: Final = ("batch", "layer")
"""What the norms of a stream may be: per token over the batch, or over the channels of a token."""


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """What a network of any architecture has; each architecture adds its own sizes.

    Attributes:
        image_size: Side of the input in pixels, or its height and width where they differ.
        classes: Number of logits.
        si: Whether blocks have the spatial interaction branch.
        arch: Architecture, a key of `vitc.models.ARCHITECTURES`.
        scheme: Binarization scheme, a key of `vitc.models.schemes.SCHEMES`.
        elastic: Whether attention masks are the scheme's own (BiT's), not a share of the row's
            largest probability.
        weight_bits: 1, or 32 for the first training step (latent weights used as they are).
        bn_eps: Constant of every norm; it is not in a state dict.
        norm: ``batch`` (per token) or ``layer`` (over channels), of the residual stream.
        embedding: ``fp32``, or the integers of a patch embedding on bytes
            (`vitc.models.embedding`).
        ends: Layers whose products of floats are in int8 (`vitc.models.ends`): name, and scale and
            zero of the codes of its input.

    Raises:
        VitcError: If the sizes contradict each other.
    """

    image_size: Sides
    classes: int
    si: bool = False
    arch: str = ""
    scheme: str = "bibert"
    elastic: bool = False
    weight_bits: int = 1
    bn_eps: float = 1e-6
    norm: str = "batch"
    embedding: str = "fp32"
    ends: tuple[tuple[str, float, int], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "image_size", checked_sides("image_size", self.image_size))
        self._check_sizes("classes")
        if type(self.si) is not bool:
            raise VitcError(f"si must be true or false, found {shown(self.si)}.")
        if self.arch != type(self).arch:
            raise VitcError(
                f"The architecture is {shown(self.arch)}, wanted {type(self).arch} for a "
                f"{type(self).__name__}."
            )
        if not isinstance(self.scheme, str):
            raise VitcError(f"scheme must be a name, found {shown(self.scheme)}.")
        if type(self.elastic) is not bool:
            raise VitcError(f"elastic must be true or false, found {shown(self.elastic)}.")
        if self.weight_bits not in (1, 32):
            raise VitcError(f"weight_bits must be 1 or 32, found {shown(self.weight_bits)}.")
        if not number(self.bn_eps) or not self.bn_eps > 0:
            raise VitcError(f"bn_eps must be positive, found {shown(self.bn_eps)}.")
        if self.norm not in NORMS:
            raise VitcError(f"norm must be {' or '.join(NORMS)}, found {shown(self.norm)}.")
        if self.embedding not in EMBEDDINGS.known:
            raise VitcError(
                f"embedding must be {' or '.join(EMBEDDINGS.known)}, found {shown(self.embedding)}."
            )
        object.__setattr__(self, "ends", _checked_ends(self.ends))

    def _check_sizes(self, *sizes: str) -> None:
        for name in sizes:
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= LARGEST:
                raise VitcError(
                    f"{name} must be a positive integer of at most {LARGEST}, found {shown(value)}."
                )

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of an input in pixels."""
        return both(self.image_size)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Colours, height and width of an input."""
        return 3, *self.sides

    @property
    def takes_bytes(self) -> bool:
        """Whether images are bytes from 0 to 255, not normalised floats."""
        return self.embedding != "fp32"

    @property
    def rounded(self) -> str:
        """What of it is rounded to integers, in words; empty for a network as it was trained."""
        parts = [f"{self.embedding} embedding"] if self.takes_bytes else []
        return " and ".join([*parts, "int8 ends"] if self.ends else parts)

    @property
    def binarized(self) -> bool:
        """Whether there are binary layers; full-precision twins have none."""
        return True

    @property
    @abstractmethod
    def blocks(self) -> int:
        """Blocks of all stages."""

    @property
    @abstractmethod
    def widest(self) -> int:
        """Channels of a token where it has most."""

    @abstractmethod
    def shape(self) -> str:
        """The sizes of its blocks in a few words."""

    @abstractmethod
    def replace(
        self,
        *,
        image_size: Sides | None = None,
        classes: int | None = None,
        depth: int | None = None,
        mlp_ratio: int | None = None,
        si: bool | None = None,
        weight_bits: int | None = None,
        norm: str | None = None,
        merge: str | None = None,
    ) -> Self:
        """This configuration with some sizes changed; others follow.

        Raises:
            VitcError: If the sizes contradict each other, or the architecture has no such size.
        """

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values; what is in fp32 anyway is not named."""
        return _without_fp32(dataclasses.asdict(self))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`.

        Raises:
            VitcError: If a field is unknown or missing, or sizes contradict each other.
        """
        return cls(**known_fields(cls, values, "model configuration"))


def _without_fp32(values: dict[str, Any]) -> dict[str, Any]:
    """Fields, and those of a configuration inside, as files had them before there was a choice."""
    return {
        key: _without_fp32(value) if isinstance(value, dict) else value
        for key, value in values.items()
        if (key, value) not in (("embedding", "fp32"), ("ends", ()))
    }


def _checked_ends(ends: Any) -> tuple[tuple[str, float, int], ...]:
    """Entries as tuples, as JSON has none."""
    known = isinstance(ends, list | tuple) and all(
        isinstance(end, list | tuple)
        and tuple(map(type, end)) == (str, float, int)
        and 0 < end[1] < math.inf
        and 0 <= end[2] <= _LARGEST_CODE
        for end in ends
    )
    if not known:
        raise VitcError(
            f"ends must be names of layers with a scale and a zero of codes, found {shown(ends)}."
        )
    return tuple(tuple(end) for end in ends)


@dataclass(frozen=True)
class Preset:
    """A named network: its configuration, its preprocessing, one line about it."""

    name: str
    config: NetworkConfig
    preprocessing: Preprocessing
    summary: str
