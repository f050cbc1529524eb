"""What a check can be made of: an ONNX file in ONNX Runtime, or an artefact on a device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from numpy.typing import NDArray

from vitc.devices import Device, RunRequest
from vitc.devices.machine import machine
from vitc.onnx_files import run_with_taps, tap_names
from vitc.onnx_files.confined import opening
from vitc.onnx_files.session import serialized

if TYPE_CHECKING:
    from concurrent.futures import Future

    import onnx_ir as ir

    from vitc.onnx_files.confined import ConfinedSession
    from vitc.runtime.artefact import Artefact

__all__ = ["Arrays", "ArtefactCandidate", "Candidate", "OnnxCandidate"]

Arrays: TypeAlias = Mapping[str, NDArray[Any]]


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

    def outputs(self, inputs: Arrays) -> Arrays:
        """Inputs by name, B in front, to outputs by name."""

    def trace(self, inputs: Arrays) -> Arrays:
        """Inputs to the value of every tap it has and of every output, B in front."""


@dataclass(frozen=True, eq=False)
class OnnxCandidate:
    """An exported file in ONNX Runtime, which begins to open it at once, in its own process."""

    path: Path
    model: ir.Model
    device: str = "onnxruntime"

    def __post_init__(self) -> None:
        _ = self._traced

    @property
    def machine(self) -> Mapping[str, Any]:
        """See `Candidate.machine`."""
        return machine().to_dict()

    @cached_property
    def _outputs(self) -> list[str]:
        return [str(value.name) for value in self.model.graph.outputs]

    @cached_property
    def _traced(self) -> Future[ConfinedSession]:
        # Opening a file takes longer than running it, so one session serves both.
        names = list(dict.fromkeys((*tap_names(self.model), *self._outputs)))
        return opening(serialized(self.model, names))

    def outputs(self, inputs: Arrays) -> Arrays:
        """See `Candidate.outputs`."""
        return run_with_taps(self._traced.result(), inputs, self._outputs)

    def trace(self, inputs: Arrays) -> Arrays:
        """See `Candidate.trace`."""
        return run_with_taps(self._traced.result(), inputs)


@dataclass(eq=False)
class ArtefactCandidate:
    """A compiled artefact on a device.

    Attributes:
        artefact: The artefact.
        on: Where it runs.
        threads: Threads of the library.
        entries: Names of the entries that are run, each on the inputs that it takes; none for the
            one that the artefact is opened at.
    """

    artefact: Artefact
    on: Device
    threads: int = 1
    entries: tuple[str, ...] = ()
    machine: Mapping[str, Any] = field(default_factory=dict, init=False)

    @property
    def path(self) -> Path:
        """See `Candidate.path`."""
        return self.artefact.path

    @property
    def device(self) -> str:
        """See `Candidate.device`."""
        return self.on.name

    def outputs(self, inputs: Arrays) -> Arrays:
        """See `Candidate.outputs`."""
        return self._run(inputs, RunRequest(threads=self.threads))[0]

    def trace(self, inputs: Arrays) -> Arrays:
        """See `Candidate.trace`."""
        outputs, taps = self._run(inputs, RunRequest(threads=self.threads, trace=True))
        return {**taps, **outputs}

    def _run(self, inputs: Arrays, request: RunRequest) -> tuple[Arrays, Arrays]:
        """Outputs and taps of all entries together."""
        if not self.entries:
            done = self.on.run(self.artefact, inputs, request)
            self.machine = done.facts
            return done.outputs, done.trace or {}
        outputs: dict[str, NDArray[Any]] = {}
        taps: dict[str, NDArray[Any]] = {}
        for name in self.entries:
            part = self.artefact.at(name)
            own = {port.name: inputs[port.name] for port in part.entry.inputs}
            done = self.on.run(part, own, request)
            outputs |= done.outputs
            taps |= done.trace or {}
            self.machine = done.facts
        return outputs, taps
