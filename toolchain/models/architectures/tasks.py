"""Detection and segmentation: a trunk of any backbone and scheme, a pyramid and a head in fp32."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from vitc.errors import VitcError
from vitc.models.account import Binary, LayerAccount, in_fp32, moved_linear
from vitc.models.architectures.entry import Architecture, Shapes
from vitc.models.architectures.trunks import TRUNKS
from vitc.models.config import NetworkConfig
from vitc.models.described import LARGEST, Sides, known_fields, shown

__all__ = [
    "DETECTION",
    "SEGMENTATION",
    "TOWERS",
    "DetectionConfig",
    "HeadedConfig",
    "SegmentationConfig",
    "TaskConfig",
    "TrunkMap",
    "trunk_maps",
]

TOWERS: Final = ("dense", "depthwise", "pointwise")
"""Inner layers of a detection head: 3 x 3 of all channels, 3 x 3 by channel and 1 x 1, or 1 x 1."""

_WHY: Final = "necks and heads are small and stay in fp32"
_OF_CLASSES: Final = ("norm", "head", "head_dist")


@dataclass(frozen=True)
class TrunkMap:
    """A feature map of a trunk: the residual stream after the last block of a stage.

    Attributes:
        rows: Of places.
        columns: Of places.
        width: C, channels of a place.
        stride: Pixels of the image a place, along either side.
    """

    rows: int
    columns: int
    width: int
    stride: int


def trunk_maps(config: NetworkConfig) -> tuple[TrunkMap, ...]:
    """The maps of a trunk, one a stage, the finest first.

    Raises:
        VitcError: If a stage has no map whose places are squares of pixels.
    """
    told: Any = config
    if hasattr(told, "stages"):
        found = [(stage.map, stage.width) for stage in told.stages]
    elif hasattr(told, "maps"):
        found = list(zip(told.maps, told.widths, strict=True))
    else:
        rows, columns = (side // told.patch_size for side in config.sides)
        found = [((rows, columns), told.width)]
    maps = []
    for (rows, columns), width in found:
        strides = {side // own for side, own in zip(config.sides, (rows, columns), strict=True)}
        if len(strides) > 1 or rows * min(strides) != config.sides[0]:
            raise VitcError(
                f"A map of {rows} x {columns} places does not lie square on an image of "
                f"{config.sides[0]} x {config.sides[1]} pixels.",
                "Choose a trunk with square patches.",
            )
        maps.append(TrunkMap(rows, columns, width, strides.pop()))
    return tuple(maps)


@dataclass(frozen=True, kw_only=True)
class TaskConfig(NetworkConfig):
    """A network that gives maps of the image.

    Size, scheme and bits are those of the trunk.

    Attributes:
        trunk: Configuration of the trunk, a key of the other tables.
        control: Whether the trunk's blocks are left out: what embedding, merging, neck and head do
            by themselves.
        width: Channels of the pyramid and of the head.

    Raises:
        VitcError: If the sizes contradict each other.
    """

    trunk: NetworkConfig
    control: bool = False
    width: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.trunk, NetworkConfig) or isinstance(self.trunk, TaskConfig):
            raise VitcError(f"trunk must be the configuration of a backbone, found {self.trunk}.")
        for name in ("image_size", "classes", "si", "scheme", "elastic", "weight_bits", "norm"):
            own, theirs = getattr(self, name), getattr(self.trunk, name)
            if own != theirs:
                raise VitcError(f"{name} is {shown(own)}, that of the trunk {shown(theirs)}.")
        if type(self.control) is not bool:
            raise VitcError(f"control must be true or false, found {shown(self.control)}.")
        self._check_sizes("width")
        for stride in self.levels:
            if any(side % stride for side in self.sides):
                raise VitcError(
                    f"A map of stride {stride} does not cover an image of {self.sides[0]} x "
                    f"{self.sides[1]} pixels.",
                    "Choose sides that are multiples of it.",
                )
        for level in self.levels:
            for found in trunk_maps(self.trunk):
                if level % found.stride and found.stride % level:
                    raise VitcError(
                        f"A level of stride {level} and a map of stride {found.stride} have no "
                        "whole number of places each other.",
                        "Choose strides that divide each other.",
                    )

    @property
    @abstractmethod
    def levels(self) -> tuple[int, ...]:
        """Strides of the pyramid's levels, in pixels."""

    @classmethod
    def on(cls, trunk: NetworkConfig, **own: Any) -> Self:
        """The network of a task on a trunk; `own` are fields beside those that the trunk tells."""
        told = ("image_size", "classes", "si", "scheme", "elastic", "weight_bits", "bn_eps", "norm")
        return cls(trunk=trunk, **{name: getattr(trunk, name) for name in told}, **own)

    @property
    def binarized(self) -> bool:
        """See `NetworkConfig.binarized`."""
        return self.trunk.binarized and not self.control

    @property
    def blocks(self) -> int:
        """See `NetworkConfig.blocks`."""
        return 0 if self.control else self.trunk.blocks

    @property
    def widest(self) -> int:
        """See `NetworkConfig.widest`."""
        return max(self.trunk.widest, self.width)

    def shape(self) -> str:
        """The sizes of its trunk in a few words."""
        levels = "/".join(map(str, self.levels))
        trunk = f"no blocks of {self.trunk.arch}" if self.control else self.trunk.shape()
        return f"{trunk}; maps of stride {levels}, width {self.width}"

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
        """See `NetworkConfig.replace`: that of the trunk."""
        trunk = self.trunk.replace(
            image_size=image_size,
            classes=classes,
            depth=depth,
            mlp_ratio=mlp_ratio,
            si=si,
            weight_bits=weight_bits,
            norm=norm,
            merge=merge,
        )
        told = ("image_size", "classes", "si", "weight_bits", "norm")
        return dataclasses.replace(
            self, trunk=trunk, **{name: getattr(trunk, name) for name in told}
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """See `NetworkConfig.from_dict`; the trunk is a mapping of its own."""
        fields = known_fields(cls, values, "model configuration")
        told, known = fields["trunk"], TRUNKS
        arch = told.get("arch") if isinstance(told, Mapping) else None
        if not isinstance(arch, str) or arch not in known:
            raise VitcError(
                f"The trunk is of architecture {shown(arch)}; vitc knows {', '.join(known)}."
            )
        return cls(**{**fields, "trunk": known[arch].config.from_dict(told)})


@dataclass(frozen=True, kw_only=True)
class HeadedConfig(TaskConfig):
    """A network whose head has inner layers.

    Attributes:
        tower: Inner layers of the head, one of `TOWERS`.
        layers: How many there are; of a detector before classes, and before boxes.
        binary_head: Whether the inner 1 x 1 layers are binary; not of a dense tower.
    """

    tower: str = "dense"
    layers: int = 2
    binary_head: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tower not in TOWERS:
            raise VitcError(f"tower must be one of {', '.join(TOWERS)}, found {shown(self.tower)}.")
        self._check_sizes("layers")
        if type(self.binary_head) is not bool:
            raise VitcError(f"binary_head must be true or false, found {shown(self.binary_head)}.")
        if self.binary_head and not self.trunk.binarized:
            raise VitcError(
                "A full-precision twin has no binary head.", "Leave --binary-head away."
            )
        if self.binary_head and self.tower == "dense":
            raise VitcError(
                "A dense tower has no 1 x 1 layers to be binary.",
                "Choose --tower depthwise or pointwise with --binary-head.",
            )

    @property
    def binarized(self) -> bool:
        """See `NetworkConfig.binarized`."""
        return super().binarized or self.binary_head


@dataclass(frozen=True, kw_only=True)
class DetectionConfig(HeadedConfig):
    """A detector of boxes.

    Attributes:
        strides: Pixels a place, of each level.
    """

    arch: str = "detection"
    strides: tuple[int, ...] = (8,)

    def __post_init__(self) -> None:
        if (
            not isinstance(self.strides, tuple)
            or not self.strides
            or not all(type(s) is int and 1 <= s <= LARGEST for s in self.strides)
            or any(b != 2 * a for a, b in zip(self.strides, self.strides[1:], strict=False))
        ):
            raise VitcError(
                f"strides must be positive integers, each twice the one before, found "
                f"{shown(self.strides)}."
            )
        super().__post_init__()

    @property
    def levels(self) -> tuple[int, ...]:
        """See `TaskConfig.levels`."""
        return self.strides


@dataclass(frozen=True, kw_only=True)
class SegmentationConfig(HeadedConfig):
    """Classes of pixels.

    Attributes:
        stride: Pixels a place of the logits, along either side; the trunk's finest map is made
            finer to it.
    """

    arch: str = "segmentation"
    stride: int = 2

    def __post_init__(self) -> None:
        self._check_sizes("stride")
        super().__post_init__()
        fine = trunk_maps(self.trunk)[0].stride
        if fine % self.stride:
            raise VitcError(
                f"The finest map has stride {fine}, the logits {self.stride}.",
                "Choose a stride that divides it.",
            )

    @property
    def levels(self) -> tuple[int, ...]:
        """See `TaskConfig.levels`: the trunk's finest map."""
        return (trunk_maps(self.trunk)[0].stride,)


def _no_shapes(shapes: Shapes) -> dict[str, Any]:  # noqa: ARG001
    raise VitcError(
        "A network of a task is told by its configuration, not by shapes.",
        "Give a checkpoint that vitc has written.",
    )


def _trunk_layers(config: TaskConfig) -> Iterator[LayerAccount]:
    for layer in TRUNKS[config.trunk.arch].layers(config.trunk):
        within = layer.name.split(".")
        if layer.name in _OF_CLASSES or (config.control and "blocks" in within):
            continue
        yield layer


def _convolution(
    name: str, places: int, inputs: int, outputs: int, taps: int, *, by_channel: bool = False
) -> LayerAccount:
    weights = (1 if by_channel else inputs) * outputs * taps
    return in_fp32(name, name, parameters=weights + 2 * outputs, fp_macs=places * weights, why=_WHY)


def _pyramid(config: TaskConfig) -> Iterator[LayerAccount]:
    for level in config.levels:
        places = config.sides[0] // level * (config.sides[1] // level)
        weights = macs = norms = 0
        for found in trunk_maps(config.trunk):
            channels = config.width
            if found.stride < level:
                ratio = level // found.stride
                side = 3 if ratio == 2 else ratio
                own, rows = found.width * channels * side**2, places
            else:
                channels *= (found.stride // level) ** 2
                own, rows = found.width * channels, found.rows * found.columns
            weights, macs, norms = weights + own, macs + own * rows, norms + 2 * channels
        yield in_fp32(
            f"neck.{level}", f"neck.{level}", parameters=weights + norms, fp_macs=macs, why=_WHY
        )


def _tower(config: HeadedConfig, name: str, places: int) -> Iterator[LayerAccount]:
    W = config.width
    for number in range(config.layers):
        layer = f"{name}.{number}"
        if config.tower == "dense":
            yield _convolution(layer, places, W, W, 9)
            continue
        if config.tower == "depthwise":
            yield _convolution(f"{layer}.depth", places, W, W, 9, by_channel=True)
        if not config.binary_head:
            yield _convolution(layer, places, W, W, 1)
            continue
        yield from moved_linear(
            layer,
            rows=places,
            inputs=W,
            outputs=W,
            moves=W,
            binary=Binary(config.weight_bits, config.scheme),
        )


def _detection_layers(config: DetectionConfig) -> Iterator[LayerAccount]:
    yield from _trunk_layers(config)
    yield from _pyramid(config)
    W = config.width
    for index, level in enumerate(config.strides):
        places = config.sides[0] // level * (config.sides[1] // level)
        made: list[LayerAccount] = []
        for branch in ("classes", "boxes"):
            made += _tower(config, f"head.{level}.{branch}", places)
        outputs = (("classes", config.classes), ("boxes", 4), ("centreness", 1))
        for branch, count in outputs:
            made.append(
                in_fp32(
                    f"{branch}_{level}",
                    f"{branch}_{level}",
                    parameters=W * count + count,
                    fp_macs=places * W * count,
                    why=_WHY,
                )
            )
        # Weights of the head are those of every level.
        yield from (
            made
            if not index
            else (
                dataclasses.replace(
                    layer, parameters=0, buffers=0, binary_weights=0, folded_bytes=0
                )
                for layer in made
            )
        )


def _segmentation_layers(config: SegmentationConfig) -> Iterator[LayerAccount]:
    yield from _trunk_layers(config)
    yield from _pyramid(config)
    W, fine = config.width, config.levels[0]
    ratio = fine // config.stride
    rows = config.sides[0] // fine * (config.sides[1] // fine)
    yield from _tower(config, "head", rows)
    yield _convolution("head.fine", rows, W, W * ratio**2, 1)
    places = rows * ratio**2
    yield in_fp32(
        "classes",
        "logits",
        parameters=W * config.classes + config.classes,
        fp_macs=places * W * config.classes,
        why=_WHY,
    )


def _twin(config: Any) -> NetworkConfig:
    trunk = TRUNKS[config.trunk.arch].twin(config.trunk)
    own = {
        field.name: getattr(config, field.name)
        for field in dataclasses.fields(config)
        if field.name in {"width", "control", "strides", "tower", "layers", "stride"}
    }
    twin: NetworkConfig = type(config).on(trunk, **own)
    return twin


DETECTION: Final = Architecture(
    name="detection",
    config=DetectionConfig,
    presets=(),
    tensors=(),
    sizes=_no_shapes,
    layers=_detection_layers,
    twin=_twin,
)

SEGMENTATION: Final = Architecture(
    name="segmentation",
    config=SegmentationConfig,
    presets=(),
    tensors=(),
    sizes=_no_shapes,
    layers=_segmentation_layers,
    twin=_twin,
)
