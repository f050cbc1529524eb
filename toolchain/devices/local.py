"""This machine."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from vitc.devices.device import DeviceRun, Inputs, RunRequest
from vitc.devices.machine import machine
from vitc.devices.qemu import where_else
from vitc.devices.runner import run_runner
from vitc.errors import VitcError

if TYPE_CHECKING:
    from vitc.runtime.artefact import Artefact

__all__ = ["LocalDevice"]


@dataclass(frozen=True)
class LocalDevice:
    """Runs the artefact's runner as a process of this machine, so a crash stays there."""

    name: str = "local"
    emulated: bool = False
    remote: bool = False

    def supports(self, artefact: Artefact) -> None:
        """Raise if this machine is of another architecture or lacks CPU features."""
        missing = artefact.missing_features()
        if missing:
            raise VitcError(
                f"This machine cannot run an artefact for {artefact.target.name}: "
                f"missing: {', '.join(missing)}.",
                where_else(artefact),
            )

    def run(self, artefact: Artefact, inputs: Inputs, request: RunRequest) -> DeviceRun:
        """See `vitc.devices.Device.run`."""
        self.supports(artefact)
        done = run_runner(artefact, inputs, request)
        return replace(done, facts={**machine().to_dict(), **done.facts})
