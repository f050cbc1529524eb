"""What a check can be made of: an ONNX file in ONNX Runtime, or an artefact on a device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vitc.devices import Device, DeviceRun, RunRequest
from vitc.devices.machine import machine
from vitc.onnx_files import run_with_taps, session, tap_names

if TYPE_CHECKING:
    import onnx_ir as ir

    from vitc.onnx_files.confined import ConfinedSession
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

    @property
    def machine(self) -> Mapping[str, Any]:
        """Facts about where it ran last; empty before that."""

    def logits(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Images [B, 3, H, W] to logits [B, classes]."""

    def trace(self, images: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """Images [B, 3, H, W] to the value of every tap it has, B in front, ``logits`` included."""


@dataclass(frozen=True, eq=False)
class OnnxCandidate:
    """An exported file in ONNX Runtime."""

    path: Path
    model: ir.Model
    device: str = "onnxruntime"

    @property
    def machine(self) -> Mapping[str, Any]:
        """See `Candidate.machine`."""
        return machine().to_dict()

    @cached_property
    def _traced(self) -> ConfinedSession:
        names = list(dict.fromkeys((*tap_names(self.model), "logits")))
        return session(self.model, names, confined=True)

    def logits(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Candidate.logits`."""
        # Opening a file takes longer than running it, so one session serves both.
        return run_with_taps(self._traced, images, ["logits"])["logits"]

    def trace(self, images: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """See `Candidate.trace`."""
        return run_with_taps(self._traced, images)


@dataclass(eq=False)
class ArtefactCandidate:
    """A compiled artefact on a device."""

    artefact: Artefact
    on: Device
    threads: int = 1
    machine: Mapping[str, Any] = field(default_factory=dict, init=False)

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
        return self._run(images, RunRequest(threads=self.threads)).logits

    def trace(self, images: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """See `Candidate.trace`."""
        done = self._run(images, RunRequest(threads=self.threads, trace=True))
        return {**(done.trace or {}), "logits": done.logits}

    def _run(self, images: NDArray[np.float32], request: RunRequest) -> DeviceRun:
        done = self.on.run(self.artefact, images, request)
        self.machine = done.facts
        return done
