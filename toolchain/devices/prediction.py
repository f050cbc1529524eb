"""Logits and labels of inputs, from an artefact on a device or an ONNX file in ONNX Runtime."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from vitc.devices.picture_network import Inputs, PictureNetwork, PredictOptions, open_network

__all__ = [
    "Prediction",
    "PredictionStream",
    "Ranked",
    "classified",
    "predict",
    "stream",
    "write_logits",
]

_SHOWN: Final = 3
"""Images in the short form of a prediction."""


@dataclass(frozen=True)
class Ranked:
    """One class of an image."""

    index: int
    label: str
    logit: float
    probability: float


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a network says about inputs.

    Attributes:
        names: Where each input comes from.
        logits: float32 [B, classes].
        labels: Names of the classes; None if unknown.
        threads: Threads that computed it: no more than there are processors.
    """

    names: tuple[str, ...]
    logits: NDArray[np.float32]
    labels: tuple[str, ...] | None
    threads: int = 1

    def __repr__(self) -> str:
        best = (f"{name}: {self.top(i, 1)[0].label}" for i, name in enumerate(self.names[:_SHOWN]))
        more = f", {len(self.names) - _SHOWN} more" if len(self.names) > _SHOWN else ""
        return f"Prediction({', '.join(best)}{more})"

    def top(self, index: int, count: int) -> list[Ranked]:
        """The classes of input `index` with the largest logits, best first."""
        logits = self.logits[index].astype(np.float64)
        weights = np.exp(logits - logits.max())
        order = np.argsort(-logits, kind="stable")[:count]
        return [
            Ranked(
                int(i),
                str(i) if self.labels is None else self.labels[i],
                float(logits[i]),
                float(weights[i] / weights.sum()),
            )
            for i in order
        ]

    def to_dict(self, topk: int) -> dict[str, Any]:
        """The JSON form."""
        return {"inputs": self.entries(topk)}

    def entries(self, topk: int) -> list[dict[str, Any]]:
        """The JSON form of each input."""
        return [
            {"name": name, "top": [asdict(entry) for entry in self.top(index, topk)]}
            for index, name in enumerate(self.names)
        ]


@dataclass(frozen=True, eq=False)
class PredictionStream:
    """A network on inputs, a part at a time, so that memory does not grow with their number.

    Attributes:
        names: Where each input comes from.
        labels: Names of the classes; None if unknown.
        classes: Logits of an input.
        left: What lies in folders that were given and is no picture, and how often.
        parts: The predictions, in the order of `names`; iterating runs the network. Raises a
            `VitcError` if an input cannot be read or the device fails.
    """

    names: Sequence[str]
    labels: tuple[str, ...] | None
    classes: int
    left: Mapping[str, int]
    parts: Iterator[Prediction]


def stream(
    model: str | os.PathLike[str], inputs: Inputs, options: PredictOptions | None = None
) -> PredictionStream:
    """Run a network on images or on one array, a part at a time.

    Arguments and errors are those of `vitc.devices.picture_network.open_network`.
    """
    return classified(open_network(model, inputs, options))


def classified(network: PictureNetwork) -> PredictionStream:
    """Run a classifier that was opened with its inputs, a part at a time.

    Args:
        network: Of `open_network`.
    """

    def parts() -> Iterator[Prediction]:
        for names, pixels in network.inputs.batches(network.together):
            outputs, used = network.run(pixels)
            yield Prediction(tuple(names), next(iter(outputs.values())), network.labels, used)

    read = network.inputs
    return PredictionStream(read.names, network.labels, network.config.classes, read.left, parts())


def predict(
    model: str | os.PathLike[str], inputs: Inputs, options: PredictOptions | None = None
) -> Prediction:
    """Run a network on images or on one array; all logits at once.

    Args:
        model: As for `stream`.
        inputs: As for `stream`.
        options: Threads and device.

    Raises:
        VitcError: If the model or an input does not fit, or the device fails.
    """
    streamed = stream(model, inputs, options)
    made = list(streamed.parts)
    logits = np.concatenate([part.logits for part in made])
    return Prediction(tuple(streamed.names), logits, streamed.labels, made[0].threads)


def write_logits(
    parts: Iterable[Prediction], count: int, classes: int, file: Path
) -> Iterator[Prediction]:
    """Write logits as ``.npy``, float32 [count, classes], while they go by.

    Args:
        parts: Predictions of `count` inputs.
        count: Number of inputs.
        classes: Logits of an input.
        file: To be filled.

    Yields:
        The same predictions.
    """
    header = {"descr": "<f4", "fortran_order": False, "shape": (count, classes)}
    with file.open("wb") as target:
        np.lib.format.write_array_header_1_0(target, header)
        for part in parts:
            target.write(np.ascontiguousarray(part.logits, "<f4").tobytes())
            yield part
