"""What a check can be made of: an ONNX file in ONNX Runtime, or an artefact on a device."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vitc.devices import Device, RunRequest
# from vitc.exporter import run_with_taps, tap_names
# from vitc.exporter.session import make_session

if TYPE_CHECKING:
    import onnx
    from vitc.runtime.artefact import Artefact

__all__ = ["ArtefactCandidate", "Candidate", "OnnxCandidate"]


class Candidate(Protocol):
    """Something that claims to compute what the reference computes."""

    @property
    def path(self) -> Path:
        """Where it is."""

    @property
    def device(self) -> str:
        """Where it runs, for the report."""

    def logits(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Images [B, 3, H, W] to logits [B, classes]."""

    def trace(self, images: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """Images [B, 3, H, W] to the value of every tap it has, B in front, ``logits`` included."""


@dataclass(frozen=True, eq=False)
class OnnxCandidate:
    """An exported file in ONNX Runtime."""

    path: Path
    model: onnx.ModelProto
    device: str = "onnxruntime"

    def logits(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Candidate.logits`."""
        return next(iter(run_with_taps(self.model, images, ["logits"]).values()))

    def trace(self, images: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """See `Candidate.trace`."""
        return run_with_taps(self.model, images, tap_names(self.model))


@dataclass(frozen=True, eq=False)
class ArtefactCandidate:
    """A compiled artefact on a device."""

    artefact: Artefact
    on: Device
    threads: int = 1

    @property
    def path(self) -> Path:
        """See `Candidate.path`."""
        return self.artefact.path

    @property
    def device(self) -> str:
        """See `Candidate.device`."""
        return self.on.name

    def logits(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Candidate.logits`."""
        return self.on.run(self.artefact, images, RunRequest(threads=self.threads)).logits

    def trace(self, images: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """See `Candidate.trace`."""
        request = RunRequest(threads=self.threads, trace=True)
        done = self.on.run(self.artefact, images, request)
        return {**(done.trace or {}), "logits": done.logits}
