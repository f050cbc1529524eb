"""This machine."""

from __future__ import annotations

import platform
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vitc.devices.architecture import architecture
from vitc.devices.device import DeviceRun, RunRequest
from vitc.devices.machine import machine
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

    def supports(self, artefact: Artefact) -> None:
        """Raise if the artefact is for another architecture; the runner checks CPU features."""
        target = artefact.manifest["target"]
        wanted, here = architecture(target["triple"]), platform.machine()
        if wanted.machine != here:
            raise VitcError(
                f"The artefact is for {target['name']} ({wanted.machine}), "
                f"this machine is {here}.",
                "Add `--device qemu` to emulate it, or compile with `--target native`.",
            )

    def run(
        self, artefact: Artefact, inputs: NDArray[np.float32], request: RunRequest
    ) -> DeviceRun:
        """See `vitc.devices.Device.run`."""
        self.supports(artefact)
        done = run_runner(artefact, inputs, request)
        return replace(done, facts=machine().to_dict())
