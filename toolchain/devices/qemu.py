"""Another architecture on this machine, by qemu user emulation."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from vitc.devices.device import DeviceRun, Inputs, RunRequest
from vitc.devices.machine import machine
from vitc.devices.runner import run_runner
from vitc.errors import VitcError

if TYPE_CHECKING:
    from vitc.runtime.artefact import Artefact

__all__ = ["INSTALL_HINT", "QemuDevice", "find_emulator", "where_else"]

INSTALL_HINT = "Install it, on Debian or Ubuntu with `sudo apt-get install qemu-user`."


def find_emulator(name: str) -> str | None:
    """Path of a qemu-user program; None if there is none.

    That is the one on `PATH`, else the one that `make` unpacked into this Python environment, else
    the statically linked one on `PATH`.
    """
    unpacked = str(Path(sys.prefix, "qemu", "usr", "bin"))
    return (
        shutil.which(name) or shutil.which(name, path=unpacked) or shutil.which(f"{name}-static")
    )


def where_else(artefact: Artefact) -> str:
    """What to do with an artefact that this machine does not run."""
    beyond = artefact.target.not_emulated
    native = "compile with `--target native`"
    if beyond:
        return f"Run it on a machine that has {', '.join(beyond)}, or {native}."
    if find_emulator(f"qemu-{artefact.target.emulator}") is None:
        return f"Install qemu-{artefact.target.emulator} and add `--device qemu`, or {native}."
    return f"Add `--device qemu` to emulate it, or {native}."


@dataclass(frozen=True)
class QemuDevice:
    """Runs the artefact's runner under qemu-user with every feature that qemu knows."""

    name: str = "qemu"
    emulated: bool = True
    remote: bool = False

    def supports(self, artefact: Artefact) -> None:
        """Raise if the emulator is not installed, or emulates no such instructions."""
        beyond = artefact.target.not_emulated
        if beyond:
            raise VitcError(
                f"qemu-{artefact.target.emulator} does not emulate {', '.join(beyond)}.",
                "Run the artefact on such a machine, or compile for a smaller target.",
            )
        self.emulator(artefact)

    def run(self, artefact: Artefact, inputs: Inputs, request: RunRequest) -> DeviceRun:
        """See `vitc.devices.Device.run`; the latencies are those of the emulation."""
        self.supports(artefact)
        emulator = self.emulator(artefact)
        done = run_runner(artefact, inputs, request, prefix=(emulator, "-cpu", "max"))
        emulated = {"emulator": emulator, "cpu": "max"}
        return replace(done, facts={**machine().to_dict(), **done.facts, **emulated})

    def emulator(self, artefact: Artefact) -> str:
        """Path of the emulator of an artefact; a `VitcError` if it is not installed."""
        wanted = f"qemu-{artefact.target.emulator}"
        found = find_emulator(wanted)
        if found is None:
            raise VitcError(f"{wanted} is not installed.", INSTALL_HINT)
        return found
