"""Logits and labels of inputs, from an artefact on a device or an ONNX file in ONNX Runtime."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitc.devices.device import RunRequest
from vitc.devices.inputs import read_inputs
from vitc.devices.source import Description, refuse_external_data
from vitc.devices.table import parse_device
from vitc.errors import VitcError
from vitc.models.picture import Colour
from vitc.runtime.artefact import Artefact

__all__ = ["PredictOptions", "Prediction", "Ranked", "predict", "write_logits"]


@dataclass(frozen=True)
class PredictOptions:
    """How to run.

    Attributes:
        threads: Threads of the library or of ONNX Runtime.
        device: Where an artefact runs, as behind ``--device``.
        allow_external_data: Whether an ONNX file keeps data in other files of its folder.
        background: Colour below transparent pixels, if not what the network was trained with.
    """

    threads: int = 1
    device: str = "local"
    allow_external_data: bool = False
    background: Colour | None = None


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
    """

    names: tuple[str, ...]
    logits: NDArray[np.float32]
    labels: tuple[str, ...] | None

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
        return {
            "inputs": [
                {"name": name, "top": [asdict(entry) for entry in self.top(index, topk)]}
                for index, name in enumerate(self.names)
            ]
        }


def predict(
    model: str | os.PathLike[str], inputs: Sequence[Path], options: PredictOptions | None = None
) -> Prediction:
    """Run a network on images or on one array.

    Args:
        model: An artefact folder, or an exported ``.onnx`` file, which runs in ONNX Runtime.
        inputs: Image files, or one ``.npy`` [B, 3, H, W] float32, already normalised.
        options: Threads and device.

    Raises:
        VitcError: If the model or an input does not fit, or the device fails.
    """
    chosen = options or PredictOptions()
    path = Path(model)
    if path.is_dir():
        refuse_external_data(path, chosen.allow_external_data)
        artefact = Artefact.open(path)
        description = Description.of_artefact(artefact)
        read = read_inputs(
            inputs, description.config, description.preprocessing.on(chosen.background)
        )
        device = parse_device(chosen.device)
        logits = device.run(artefact, read.pixels, RunRequest(threads=chosen.threads)).logits
    else:
        if chosen.device != "local":
            raise VitcError(
                f"An ONNX file runs in ONNX Runtime on this machine, not on {chosen.device!r}.",
                "Compile it, and run the artefact there.",
            )
        from vitc.exporter import load_onnx, run_with_taps, session

        graph, facts = load_onnx(path, allow_external_data=chosen.allow_external_data)
        description = Description.of_onnx(path, facts)
        read = read_inputs(
            inputs, description.config, description.preprocessing.on(chosen.background)
        )
        opened = session(graph, ["logits"], chosen.threads, confined=True)
        logits = run_with_taps(opened, read.pixels)["logits"]
    return Prediction(read.names, logits, description.labels)


def write_logits(logits: NDArray[np.float32], path: Path) -> None:
    """Write logits as ``.npy``, complete or not at all."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with aside.open("wb") as stream:
            np.save(stream, logits)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
