"""The interface of a device, and what a run on it gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from vitc.runtime.artefact import Artefact

__all__ = ["Device", "DeviceRun", "Inputs", "RunRequest"]

DEFAULT_TIMEOUT_S = 900.0

Inputs: TypeAlias = NDArray[np.float32] | Mapping[str, NDArray[Any]]
"""The images of a classifier, or arrays by the names of input ports."""


@dataclass(frozen=True)
class RunRequest:
    """How to run an artefact.

    Attributes:
        threads: Threads of the library.
        repeat: Timed runs of each batch.
        warmup: Untimed runs before them.
        trace: Whether to hand out the value of every tap.
        profile: Whether to time every step.
        pin: Whether to bind each thread to a processor of its own.
        digests: Whether to hand out the SHA-256 of every buffer, where the device is this machine.
        timeout_s: Seconds after which the run is stopped and counts as failed.
    """

    threads: int = 1
    repeat: int = 1
    warmup: int = 0
    trace: bool = False
    profile: bool = False
    pin: bool = False
    digests: bool = False
    timeout_s: float = DEFAULT_TIMEOUT_S


@dataclass(frozen=True, eq=False)
class DeviceRun:
    """What came back from a device.

    Attributes:
        outputs: Arrays by the names of the output ports, in their order.
        latencies_ns: One entry a timed run of one batch, nanoseconds.
        load_ns: From the start of the library to ready, nanoseconds.
        start_ns: The same and the first batch, nanoseconds.
        trace: Tap name to value with B in front; None unless asked for.
        step_ns: Nanoseconds of each step, the sum over all timed runs; None unless asked for.
        facts: What the device says about itself.
        threads: Threads that there were, no more than it has processors; None if it does not say.
        digests: Lines of `vitc-run --digests`; None unless asked for.
    """

    outputs: Mapping[str, NDArray[Any]]
    latencies_ns: tuple[int, ...]
    load_ns: int
    trace: dict[str, NDArray[Any]] | None = None
    step_ns: tuple[int, ...] | None = None
    start_ns: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict)
    threads: int | None = None
    digests: str | None = None

    @property
    def logits(self) -> NDArray[np.float32]:
        """float32 [B, classes]; of a network with other outputs, the first of them."""
        return next(iter(self.outputs.values()))


class Device(Protocol):
    """A machine that runs artefacts.

    Attributes:
        name: As a user writes it behind ``--device``.
        emulated: Whether its time means nothing.
        remote: Whether it is another machine, so that nothing here can be timed beside it.
    """

    @property
    def name(self) -> str:
        """As a user writes it behind ``--device``."""

    @property
    def emulated(self) -> bool:
        """Whether its times mean nothing."""

    @property
    def remote(self) -> bool:
        """Whether it is another machine."""

    def supports(self, artefact: Artefact) -> None:
        """Raise the `VitcError` that `run` would raise for lack of something on this machine."""

    def run(self, artefact: Artefact, inputs: Inputs, request: RunRequest) -> DeviceRun:
        """Run the entry of an artefact that it was opened at (`Artefact.at`), which is the first.

        Args:
            artefact: An opened artefact folder.
            inputs: float32 [B, 3, H, W], any B; normalised. Arrays by name for other ports.
            request: Threads, repeats, trace, timeout.

        Raises:
            VitcError: If the device is missing, refuses the artefact, fails or takes too long.
        """
