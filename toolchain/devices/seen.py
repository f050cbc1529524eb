"""What a detector or a segmentation network sees in pictures, in pixels of the pictures."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitc.devices.picture_network import Inputs, PictureNetwork, PredictOptions, open_network
from vitc.errors import VitcError
from vitc.models.architectures.tasks import DetectionConfig, TaskConfig
from vitc.models.picture import read_picture
from vitc.models.preprocessing import Placement
from vitc.runtime.detection import DecodeOptions, Detections, decode
from vitc.runtime.overlay import with_boxes, with_mask
from vitc.runtime.segmentation import classes_of_pixels

__all__ = ["SURE", "Seen", "see", "seen"]

SURE: Final = 0.2
"""Least score of a box that people are told of; a figure counts those of smaller scores too."""

_HIDDEN: Final = "background"
"""A class with this name is not drawn."""


@dataclass(frozen=True, eq=False)
class Seen:
    """What is in one input.

    Attributes:
        name: Where it comes from.
        labels: Names of the classes.
        placement: Where it lies on its picture; an array lies on itself.
        maps: All outputs of the network, by name, without the axis of images.
        boxes: Of a detector, in pixels of the picture, the best first; else None.
        mask: Of a segmentation network, the class of each pixel of the input, int64 [H, W]; else
            None.
    """

    name: str
    labels: tuple[str, ...]
    placement: Placement
    maps: Mapping[str, NDArray[np.float32]]
    boxes: Detections | None = None
    mask: NDArray[np.int64] | None = None

    def __repr__(self) -> str:
        found = [entry["label"] for entry in self.to_dict().get("boxes", self.shares())]
        return f"Seen({self.name}: {', '.join(found) or 'nothing'})"

    def shares(self) -> list[dict[str, Any]]:
        """Classes and the shares of the input's pixels that they have, the largest first."""
        if self.mask is None:
            return []
        counts = np.bincount(self.mask.ravel(), minlength=len(self.labels))
        order = [int(k) for k in np.argsort(-counts, kind="stable") if counts[k]]
        size = self.mask.size
        return [
            {"index": k, "label": self.labels[k], "share": float(counts[k] / size)} for k in order
        ]

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        width, height = self.placement.picture
        told: dict[str, Any] = {
            "name": self.name,
            "picture": {"width": width, "height": height},
        }
        if self.boxes is None:
            return {**told, "shares": self.shares()}
        found = zip(self.boxes.boxes, self.boxes.scores, self.boxes.classes, strict=True)
        return {
            **told,
            "boxes": [
                {
                    "index": int(own),
                    "label": self.labels[own],
                    "score": float(score),
                    "box": [float(side) for side in box],
                }
                for box, score, own in found
            ],
        }

    def drawn(self, picture: Image.Image) -> Image.Image:
        """The upright picture with what was seen in it.

        Args:
            picture: Of the size that `placement` says.
        """
        if self.boxes is not None:
            found = zip(self.boxes.classes, self.boxes.scores, strict=True)
            texts = [f"{self.labels[own]} {score:.2f}" for own, score in found]
            return with_boxes(picture, self.boxes.boxes, self.boxes.classes.tolist(), texts)
        assert self.mask is not None  # noqa: S101 - it is of one of both
        hidden = self.labels.index(_HIDDEN) if _HIDDEN in self.labels else None
        return with_mask(picture, self.placement.mask_on_picture(self.mask), hidden=hidden)


def see(
    model: str | os.PathLike[str],
    inputs: Inputs,
    options: PredictOptions | None = None,
    decoding: DecodeOptions | None = None,
) -> list[Seen]:
    """Run a detector or a segmentation network on images or on one array.

    Args:
        model: An artefact folder, or an exported ``.onnx`` file, which runs in ONNX Runtime.
        inputs: An image file, a folder of them, several of both, or one ``.npy`` [B, 3, H, W]
            float32, already normalised.
        options: Threads and device.
        decoding: Which boxes are kept; by default those whose score is above `SURE`.

    Raises:
        VitcError: If the network is none of these, an input does not fit, or the device fails.
    """
    network = open_network(model, inputs, options)
    if not isinstance(network.config, TaskConfig):
        raise VitcError(
            f"{model} gives no maps of an image.", "Classify pictures with vitc.predict."
        )
    return [each for part, _ in seen(network, decoding) for each in part]


def seen(
    network: PictureNetwork, decoding: DecodeOptions | None = None
) -> Iterator[tuple[list[Seen], int]]:
    """Run a network that was opened with its inputs, a part at a time.

    Args:
        network: Of a task.
        decoding: As of `see`.

    Yields:
        What was seen in some inputs, in their order, and the threads that computed it.

    Raises:
        VitcError: If an input cannot be read, or the device fails.
    """
    config, inputs = network.config, network.inputs
    assert isinstance(config, TaskConfig)  # noqa: S101 - the caller asks for one
    labels = network.labels or tuple(str(number) for number in range(config.classes))
    for start in range(0, len(inputs), network.together):
        end = min(start + network.together, len(inputs))
        pixels, placements = _read(network, start, end)
        outputs, threads = network.run(pixels)
        yield (
            [
                _seen(
                    config,
                    labels,
                    inputs.names[start + i],
                    placement,
                    {name: value[i] for name, value in outputs.items()},
                    decoding or DecodeOptions(score=SURE),
                )
                for i, placement in enumerate(placements)
            ],
            threads,
        )


def _read(
    network: PictureNetwork, start: int, end: int
) -> tuple[NDArray[np.float32], Sequence[Placement]]:
    inputs, how = network.inputs, network.preprocessing
    if not inputs.files:
        height, width = network.config.sides
        whole = Placement((width, height), (width, height), (0, 0))
        return inputs.part(start, end), [whole] * (end - start)
    cut, placements = [], []
    for file in inputs.files[start:end]:
        picture = read_picture(file, how.background)
        placements.append(how.placement(*picture.size))
        cut.append(np.asarray(how.crop_centre(picture, str(file))))
    return how.normalise(np.stack(cut)), placements


def _seen(
    config: TaskConfig,
    labels: tuple[str, ...],
    name: str,
    placement: Placement,
    maps: Mapping[str, NDArray[np.float32]],
    decoding: DecodeOptions,
) -> Seen:
    if isinstance(config, DetectionConfig):
        found = decode(maps, config.strides, config.sides, decoding)
        boxes = Detections(placement.on_picture(found.boxes), found.scores, found.classes)
        return Seen(name, labels, placement, maps, boxes=boxes)
    return Seen(name, labels, placement, maps, mask=classes_of_pixels(maps["logits"], config.sides))
