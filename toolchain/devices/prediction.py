"""Logits and labels of inputs, from an artefact on a device or an ONNX file in ONNX Runtime."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vitc.devices.device import RunRequest
from vitc.devices.inputs import read_inputs
from vitc.devices.machine import usable_cores
from vitc.devices.source import Description, refuse_external_data
from vitc.devices.table import parse_device
from vitc.errors import VitcError
from vitc.models.picture import Colour
from vitc.runtime.artefact import Artefact

__all__ = [
    "PredictOptions",
    "Prediction",
    "PredictionStream",
    "Ranked",
    "predict",
    "stream",
    "write_logits",
]

Inputs: TypeAlias = "str | os.PathLike[str] | Sequence[str | os.PathLike[str]]"

_BYTES: Final = 32 << 20
"""Of images that a process is started for: the start takes 10 ms."""

_REMOTE_BYTES: Final = 256 << 20
"""Of images that a connection is opened for: that takes seconds."""

_ONNX_BYTES: Final = 8 << 20
"""Of images in one run of ONNX Runtime, which keeps the activations of all of them."""

_MOST_IMAGES: Final = 4096

_SHOWN: Final = 3
"""Images in the short form of a prediction."""


@dataclass(frozen=True)
class PredictOptions:
    """How to run.

    Attributes:
        threads: Threads of the library or of ONNX Runtime.
        device: Where an artefact runs, as behind ``--device``.
        allow_external_data: Whether an ONNX file keeps data in other files of its folder.
        background: Colour below transparent pixels, if not what the network was trained with.
        pin: Whether to bind each thread of an artefact to a processor of its own.
    """

    threads: int = 1
    device: str = "local"
    allow_external_data: bool = False
    background: Colour | None = None
    pin: bool = False


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

    Args:
        model: An artefact folder, or an exported ``.onnx`` file, which runs in ONNX Runtime.
        inputs: An image file, a folder of them, several of both, or one ``.npy`` [B, 3, H, W]
            float32, already normalised.
        options: Threads and device.

    Raises:
        VitcError: If the model does not fit, or an input is not there.
    """
    chosen = options or PredictOptions()
    path = Path(model)
    given = [inputs] if isinstance(inputs, str | os.PathLike) else inputs
    paths = [Path(entry) for entry in given]
    if chosen.background is not None and any(entry.suffix == ".npy" for entry in paths):
        raise VitcError(
            "A background is for pictures, and an array is none.", "Leave --background away."
        )
    if path.is_dir():
        refuse_external_data(path, chosen.allow_external_data)
        artefact = Artefact.open(path)
        description = Description.of_artefact(artefact)
        device = parse_device(chosen.device)
        room, step = (_REMOTE_BYTES if device.remote else _BYTES), artefact.batch
        threads = chosen.threads if device.remote else min(chosen.threads, len(usable_cores()))
        request = RunRequest(threads=threads, pin=chosen.pin)

        def run(pixels: NDArray[np.float32]) -> tuple[NDArray[np.float32], int]:
            done = device.run(artefact, pixels, request)
            return done.logits, done.threads or threads
    else:
        if chosen.device != "local":
            raise VitcError(
                f"An ONNX file runs in ONNX Runtime on this machine, not on {chosen.device!r}.",
                "Compile it, and run the artefact there.",
            )
        if chosen.pin:
            raise VitcError(
                "ONNX Runtime places its threads itself.", "Leave --pin away, or run an artefact."
            )
        from vitc.onnx_files import load_onnx, run_with_taps, session

        graph, facts = load_onnx(path, allow_external_data=chosen.allow_external_data)
        description = Description.of_onnx(path, facts)
        threads = min(chosen.threads, len(usable_cores()))
        opened = session(graph, ["logits"], threads, confined=True)
        room, step = _ONNX_BYTES, 1

        def run(pixels: NDArray[np.float32]) -> tuple[NDArray[np.float32], int]:
            return run_with_taps(opened, pixels)["logits"], threads

    shown = description.preprocessing.on(chosen.background)
    read = read_inputs(paths, description.config, shown)
    count = max(1, room // (math.prod(description.config.input_shape) * 4))
    size = min(_MOST_IMAGES, step * max(1, count // step))

    def parts() -> Iterator[Prediction]:
        for names, pixels in read.batches(size):
            logits, used = run(pixels)
            yield Prediction(tuple(names), logits, description.labels, used)

    classes = description.config.classes
    return PredictionStream(read.names, description.labels, classes, read.left, parts())


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
