"""A network that is given pictures: an artefact on a device, or an ONNX file in ONNX Runtime."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from numpy.typing import NDArray

from vitc.devices.device import RunRequest
from vitc.devices.inputs import Inputs as Given
from vitc.devices.inputs import read_inputs
from vitc.devices.machine import usable_cores
from vitc.devices.source import Description, refuse_external_data
from vitc.devices.table import parse_device
from vitc.errors import VitcError
from vitc.extras import need
from vitc.models.architectures.tasks import TaskConfig
from vitc.models.config import NetworkConfig
from vitc.models.picture import Colour
from vitc.models.preprocessing import Preprocessing
from vitc.runtime.artefact import Artefact

__all__ = ["Inputs", "PictureNetwork", "PredictOptions", "open_network"]

Inputs: TypeAlias = "str | os.PathLike[str] | Sequence[str | os.PathLike[str]]"

_BYTES: Final = 32 << 20
"""Of images that a process is started for: the start takes 10 ms."""

_REMOTE_BYTES: Final = 256 << 20
"""Of images that a connection is opened for: that takes seconds."""

_ONNX_BYTES: Final = 8 << 20
"""Of images in one run of ONNX Runtime, which keeps the activations of all of them."""

_MOST_IMAGES: Final = 4096


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


@dataclass(frozen=True, eq=False)
class PictureNetwork:
    """A network, opened with what it is to be given.

    Attributes:
        config: Its sizes.
        preprocessing: How pictures become its inputs.
        labels: Names of its classes; None if unknown.
        inputs: What it is given, read when it is asked for.
        together: Inputs that are given at once.
        run: Takes float32 [B, 3, H, W], or uint8 for an integer embedding; gives arrays by the
            names of outputs, and the threads that computed them. Raises a `VitcError` if the device
            fails.
    """

    config: NetworkConfig
    preprocessing: Preprocessing
    labels: tuple[str, ...] | None
    inputs: Given
    together: int
    run: Callable[[NDArray[Any]], tuple[Mapping[str, NDArray[Any]], int]]


def open_network(
    model: str | os.PathLike[str], inputs: Inputs, options: PredictOptions | None = None
) -> PictureNetwork:
    """Open a network with images or with one array.

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

        def run(pixels: NDArray[Any]) -> tuple[Mapping[str, NDArray[Any]], int]:
            named = artefact.entry.classifier is None
            own = {artefact.entry.inputs[0].name: pixels} if named else pixels
            done = device.run(artefact, own, request)
            return done.outputs, done.threads or threads
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
        need("Running an ONNX file", "onnx")
        from vitc.onnx_files import load_onnx, run_with_taps, session

        graph, facts = load_onnx(path, allow_external_data=chosen.allow_external_data)
        description = Description.of_onnx(path, facts)
        threads = min(chosen.threads, len(usable_cores()))
        of_task = isinstance(description.config, TaskConfig)
        outputs = [str(v.name) for v in graph.graph.outputs] if of_task else ["logits"]
        opened = session(graph, outputs, threads, confined=True)
        room, step = _ONNX_BYTES, 1

        def run(pixels: NDArray[Any]) -> tuple[Mapping[str, NDArray[Any]], int]:
            return run_with_taps(opened, pixels), threads

    config, shown = description.config, description.preprocessing.on(chosen.background)
    count = max(1, room // (math.prod(config.input_shape) * 4))
    together = min(_MOST_IMAGES, step * max(1, count // step))
    read = read_inputs(paths, config, shown)
    return PictureNetwork(config, shown, description.labels, read, together, run)
