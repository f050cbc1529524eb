"""Ports: the named inputs and outputs of an entry."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

__all__ = ["DTYPES", "EXTENT", "MOST_AXES", "Port", "classifier"]

DTYPES: Final = ("float32", "int32", "uint8")
"""What a port holds, numbered as `vitc_dtype` of vitc_model.h: floats, integers and indices, bits
that are {0, 1} or packed."""

EXTENT: Final = "n"
"""Name, in an ONNX file, of an axis whose length each run chooses. Where an input has it, inputs of
fixed sizes belong to the whole run as well; elsewhere the first axis of every input is that of
images."""

MOST_AXES: Final = 8
_MOST: Final = 1 << 31
_IMAGE_AXES: Final = 3
_NAME: Final = re.compile(r"[A-Za-z0-9_.:/-]{1,200}")


@dataclass(frozen=True)
class Port:
    """What a run is given or gives.

    Attributes:
        name: As in the ONNX file.
        dtype: One of `DTYPES`.
        shape: Of one image, or of the whole run; None is the extent `n` of a run, which one axis
            may have.
        per_image: Whether each image of a batch has one of its own, so that the array has an axis
            of images in front.
        limit: Of an index: each is at least 0 and below this, or the run is refused. None for what
            is no index.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]
    per_image: bool = True
    limit: int | None = None

    def __post_init__(self) -> None:
        sizes = [size for size in self.shape if size is not None]
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise ValueError(f"{self.name!r} is no name of a port")
        if self.dtype not in DTYPES:
            raise ValueError(f"{self.name} holds {self.dtype!r}, wanted one of {DTYPES}")
        if len(self.shape) > MOST_AXES or len(self.shape) - len(sizes) > 1:
            raise ValueError(f"{self.name} has {len(self.shape)} axes, or several of extent n")
        if not all(type(size) is int and 0 < size < _MOST for size in sizes):
            raise ValueError(f"{self.name} has the shape {list(self.shape)}")
        if math.prod(sizes) >= _MOST:
            raise ValueError(f"{self.name} has too many values: {list(self.shape)}")
        if type(self.per_image) is not bool:
            raise ValueError(f"{self.name} is neither of each image nor of the whole run")
        if self.limit is not None and (
            type(self.limit) is not int or not 0 < self.limit < _MOST or self.dtype != "int32"
        ):
            raise ValueError(f"{self.name} has the limit {self.limit!r}")

    @property
    def extent(self) -> bool:
        """Whether an axis has the extent `n` of a run."""
        return None in self.shape

    @property
    def of_floats(self) -> bool:
        """Whether each image has floats of its own, of fixed number."""
        return self.dtype == "float32" and self.per_image and not self.extent

    @property
    def of_pixels(self) -> bool:
        """Whether it holds an image of bytes: colours, height and width of each."""
        whole = self.dtype == "uint8" and self.per_image and not self.extent
        return whole and len(self.shape) == _IMAGE_AXES

    @property
    def itemsize(self) -> int:
        """Bytes of a value."""
        return np.dtype(self.dtype).itemsize

    @property
    def values(self) -> int:
        """Values of one image, or of the whole run; of one `n`, if there is an extent."""
        return math.prod(size for size in self.shape if size is not None)

    def sizes(self, images: int, n: int = 0) -> tuple[int, ...]:
        """Shape of the array for so many images and this extent."""
        shape = tuple(n if size is None else size for size in self.shape)
        return (images, *shape) if self.per_image else shape

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "name": self.name,
            "dtype": self.dtype,
            "shape": list(self.shape),
            "per_image": self.per_image,
            "limit": self.limit,
        }

    @classmethod
    def from_dict(cls, values: Any) -> Port:
        """The inverse of `to_dict`.

        Raises:
            ValueError: If they are no port.
        """
        names = ["name", "dtype", "shape", "per_image", "limit"]
        if not isinstance(values, Mapping) or sorted(values) != sorted(names):
            raise ValueError(f"a port has {', '.join(names)}")
        if not isinstance(values["shape"], list):
            raise ValueError("the shape of a port is a list")
        return cls(**{**values, "shape": tuple(values["shape"])})

    def __str__(self) -> str:
        """Name, type, shape and limit, as errors and dumps have it."""
        sizes = ["n" if size is None else str(size) for size in self.shape]
        axes = ["N", *sizes] if self.per_image else sizes
        limit = "" if self.limit is None else f" below {self.limit}"
        return f"{self.name} {self.dtype} [{', '.join(axes)}]{limit}"


def classifier(
    inputs: Sequence[Port], outputs: Sequence[Port]
) -> tuple[tuple[int, int, int], int] | None:
    """Image shape and classes, if one image, of floats or bytes, goes in and logits come out."""
    if len(inputs) != 1 or len(outputs) != 1:
        return None
    image, logits = inputs[0], outputs[0]
    if not (image.of_floats or image.of_pixels) or not logits.of_floats:
        return None
    if (len(image.shape), len(logits.shape)) != (_IMAGE_AXES, 1):
        return None
    channels, height, width, classes = (int(size or 0) for size in (*image.shape, *logits.shape))
    return (channels, height, width), classes
