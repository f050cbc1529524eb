"""Text-image retrieval: an image tower on a backbone, a text tower, and a vocabulary."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from vitc.errors import VitcError
from vitc.models.account import LayerAccount
from vitc.models.architectures.deit import DEIT, deit_layers
from vitc.models.architectures.entry import Architecture, Shapes
from vitc.models.architectures.float_deit import FLOAT_DEIT, float_deit_layers
from vitc.models.architectures.float_nest import FLOAT_NEST
from vitc.models.architectures.float_swin import FLOAT_SWIN
from vitc.models.architectures.nest import NEST
from vitc.models.architectures.staged import StagedConfig
from vitc.models.architectures.swin import SWIN
from vitc.models.architectures.trunks import TRUNKS
from vitc.models.architectures.twin import attention, mlp, norm, projection, values
from vitc.models.config import NetworkConfig
from vitc.models.described import LARGEST, shown
from vitc.names import RETRIEVAL_MODES

__all__ = ["RETRIEVAL", "RetrievalConfig"]

_WITH_CODES: Final[Mapping[str, Callable[[Any, int], Iterator[LayerAccount]]]] = {
    DEIT.name: deit_layers,
    FLOAT_DEIT.name: float_deit_layers,
}
_SHARED: Final = tuple(
    field.name for field in dataclasses.fields(NetworkConfig) if field.name != "arch"
)
"""What is said of the backbone holds for the whole."""

_TOKENS_ALIKE: Final = frozenset(one.name for one in (SWIN, NEST, FLOAT_SWIN, FLOAT_NEST))
"""Backbones whose tokens are all of the map: their mean is what is classified."""

_MOST_PIECES: Final = 1 << 17


@dataclass(frozen=True, kw_only=True)
class RetrievalConfig(NetworkConfig):
    """Sizes of two towers. `classes` is d, the length of their vectors; see `of`.

    Attributes:
        image: Of the image tower's backbone, whose head gives each row's vector.
        mode: A key of `vitc.models.retrieval.modes.MODES`.
        codes: k, rows behind the tokens of each side; 0 unless the mode has codes.
        regions: The most rows of the image, codes not counted, that meet a text.
        length: n, word pieces of a text, padding counted.
        pieces: The vocabulary: id to word piece.
        text_width: Channels of the text tower.
        text_heads: Its attention heads.
        text_hidden: Hidden channels of its MLPs.
        text_layers: Its layers.
        packed: Whether vectors are signs, else they are unit vectors of floats.

    Raises:
        VitcError: If the sizes contradict each other.
    """

    arch: str = "retrieval"
    image: NetworkConfig
    mode: str = "base"
    codes: int = 0
    regions: int = 32
    length: int
    pieces: tuple[str, ...]
    text_width: int = 128
    text_heads: int = 4
    text_hidden: int = 256
    text_layers: int = 2
    packed: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.image, NetworkConfig) or self.image.arch not in TRUNKS:
            raise VitcError(
                f"An image tower has the backbone {' or '.join(TRUNKS)}, found "
                f"{shown(getattr(self.image, 'arch', self.image))}.",
                "Choose a preset of one of them; see `vitc models`.",
            )
        RETRIEVAL_MODES.check(self.mode)
        sizes = ("regions", "length", "text_width", "text_heads", "text_hidden", "text_layers")
        self._check_sizes(*sizes)
        if type(self.codes) is not int or not 0 <= self.codes <= LARGEST:
            raise VitcError(f"codes must be an integer from 0, found {shown(self.codes)}.")
        if self.codes and self.mode != "inflate":
            raise VitcError(
                f"Mode {self.mode} has no codes, found {self.codes}.", "Inflate has them."
            )
        if self.codes and self.image.arch not in _WITH_CODES:
            raise VitcError(
                f"Codes attend all tokens in every block, and {self.image.arch} has stages whose "
                "tokens do not.",
                "Inflate on a preset of DeiT, or train this one with --mode base or fast.",
            )
        if self.text_width % self.text_heads:
            raise VitcError(
                f"A text width of {self.text_width} does not split into {self.text_heads} heads."
            )
        pieces = self.pieces
        if not (
            isinstance(pieces, tuple)
            and 2 < len(pieces) <= _MOST_PIECES
            and all(isinstance(piece, str) for piece in pieces)
            and len(set(pieces)) == len(pieces)
        ):
            raise VitcError(
                f"A vocabulary is 3 to {_MOST_PIECES} word pieces, each once, found "
                f"{shown(pieces)}."
            )
        if type(self.packed) is not bool:
            raise VitcError(f"packed must be true or false, found {shown(self.packed)}.")

    @classmethod
    def of(cls, image: NetworkConfig, **own: Any) -> Self:
        """Towers on a backbone.

        Args:
            image: Of the backbone; its `classes` are d.
            own: All else.

        Raises:
            VitcError: If the sizes contradict each other.
        """
        shared: dict[str, Any] = {name: getattr(image, name, None) for name in _SHARED}
        return cls(image=image, **shared, **own)

    @property
    def width(self) -> int:
        """d, length of a vector."""
        return self.classes

    @property
    def image_tokens(self) -> int:
        """Rows of the backbone, without codes."""
        image: Any = self.image
        if isinstance(image, StagedConfig):
            tokens: int = image.stages[-1].tokens
        elif hasattr(image, "maps"):  # a full-precision twin of several stages
            tokens = math.prod(image.maps[-1]) + self.image_first
        else:
            tokens = image.tokens
        return tokens

    @property
    def image_first(self) -> bool:
        """Whether the backbone's first row is a class token, which stands for the image."""
        return self.image.arch not in _TOKENS_ALIKE

    @property
    def image_vectors(self) -> int:
        """b, vectors of an image that meet a text's."""
        return 1 if self.mode == "fast" else min(self.image_tokens, self.regions) + self.codes

    @property
    def text_vectors(self) -> int:
        """a, vectors of a text that meet an image's."""
        return 1 if self.mode == "fast" else self.length + self.codes

    @property
    def binarized(self) -> bool:
        """Whether the image tower has binary layers."""
        return self.image.binarized

    @property
    def blocks(self) -> int:
        """Blocks of the image tower."""
        return self.image.blocks

    @property
    def widest(self) -> int:
        """Channels of a token where it has most."""
        return max(self.image.widest, self.text_width)

    def shape(self) -> str:
        """The towers in a few words."""
        codes = f" and {self.codes} codes" if self.codes else ""
        vectors = "signs" if self.packed else "floats"
        return (
            f"{self.mode}, {self.image_vectors} vectors an image and {self.text_vectors} a text "
            f"of {self.width} {vectors}; image {self.image.arch}: {self.image.shape()}{codes}; "
            f"text: {self.text_layers} layers, width {self.text_width}, {self.text_heads} heads, "
            f"{self.length} of {len(self.pieces)} word pieces{codes}"
        )

    def replace(self, **changed: Any) -> Self:
        """Towers are not changed after they were made.

        Raises:
            VitcError: Always, unless nothing is changed.
        """
        if any(value is not None for value in changed.values()):
            raise VitcError(
                "Sizes of retrieval towers follow from their training.",
                "Train others: `vitc retrieve train`.",
            )
        return self

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values; what the backbone says is said once."""
        own = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in _SHARED
        }
        return {**own, "image": self.image.to_dict(), "pieces": list(self.pieces)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`.

        Raises:
            VitcError: As `NetworkConfig.from_dict`.
        """
        stated = dict(values)
        image = stated.pop("image", None)
        entry = TRUNKS.get(image.get("arch", DEIT.name)) if isinstance(image, dict) else None
        if entry is None:
            raise VitcError("The model configuration names no known backbone of an image tower.")
        backbone = entry.config.from_dict(image)
        repeated = sorted(set(stated) & set(_SHARED))
        if repeated:
            raise VitcError(f"The model configuration says {repeated[0]} twice.")
        shared = {name: getattr(backbone, name, None) for name in _SHARED}
        return super().from_dict({**stated, **shared, "image": backbone})


def _sizes(shapes: Shapes) -> dict[str, Any]:
    del shapes
    raise VitcError("A state dict of retrieval towers does not tell their vocabulary.")


def _layers(config: RetrievalConfig) -> Iterator[LayerAccount]:
    backbone: Any = config.image
    if backbone.arch in _WITH_CODES:
        yield from _WITH_CODES[backbone.arch](backbone, config.codes)
    else:
        yield from TRUNKS[backbone.arch].layers(backbone)
    C, n = config.text_width, config.length
    yield values("text.embedding", "text.embedding", count=C * (len(config.pieces) + n))
    rows = n + config.codes
    if config.codes:
        both = config.codes * (C + backbone.width)
        yield values("codes", "embedding", "text.embedding", count=both)
    for i in range(config.text_layers):
        yield from attention(f"text.blocks.{i}.attn", tokens=rows, width=C, keys=rows)
        yield from mlp(f"text.blocks.{i}.mlp", tokens=rows, width=C, hidden=config.text_hidden)
    yield norm("text.norm", "text.vectors", width=C)
    yield projection(
        "text.head", "text.vectors", rows=config.text_vectors, inputs=C, outputs=config.width
    )


def _twin(config: RetrievalConfig) -> RetrievalConfig:
    backbone: Any = config.image
    own = {
        field.name: getattr(config, field.name)
        for field in dataclasses.fields(config)
        if field.name not in (*_SHARED, "arch", "image")
    }
    twin: NetworkConfig = TRUNKS[backbone.arch].twin(backbone)
    return RetrievalConfig.of(twin, **{**own, "packed": False})


RETRIEVAL: Final = Architecture(
    name="retrieval",
    config=RetrievalConfig,
    presets=(),
    tensors=("text.word.weight", "text.head.weight", "image.head.weight"),
    sizes=_sizes,
    layers=_layers,
    twin=_twin,
)
