"""Executed instructions of one image, counted by a qemu plugin: a cost that repeats on any machine.

Instructions are not time: a Cortex-A72 and a Cortex-A76 execute the same ones at different speeds.
"""

from __future__ import annotations

import platform
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from vitc.devices.device import RunRequest
from vitc.devices.qemu import QemuDevice
from vitc.devices.runner import run_runner
from vitc.errors import VitcError
from vitc.extras import need
from vitc.places import scratch_folder

if TYPE_CHECKING:
    from vitc.runtime.artefact import Artefact

__all__ = ["count_instructions"]

_SOURCE: Final = "vitc_count.c"
_VERSIONS: Final = range(1, 9)
_TIMEOUT_S: Final = 60
_OTHER_VERSION: Final = re.compile(r"API version")
_HINT: Final = (
    "Counting needs a qemu with TCG plugins, such as the package qemu-user of Debian and Ubuntu; "
    "statically linked ones (qemu-user-static) cannot load any."
)


def count_instructions(artefact: Artefact) -> int:
    """Count the instructions that a library executes for one image on one thread.

    Args:
        artefact: An artefact that qemu emulates.

    Returns:
        Instructions for one image: what one more run of a batch adds, over the images of a batch.
        Starting, loading and reading are in neither count. Formatting the measured times in the
        runner's report makes some hundred instructions of difference.

    Raises:
        VitcError: If qemu is missing, emulates no such target, or takes no plugins.
    """
    device = QemuDevice()
    device.supports(artefact)
    emulator = device.emulator(artefact)
    inputs = {
        port.name: np.zeros(port.sizes(artefact.batch), port.dtype)
        for port in artefact.entry.inputs
    }
    with scratch_folder("count") as folder:
        plugin = _build(folder, emulator, artefact.runner)

        def executed(warmup: int) -> int:
            counted = folder / f"count-{warmup}"
            prefix = (emulator, "-cpu", "max", "-plugin", f"{plugin},out={counted}")
            run_runner(artefact, inputs, RunRequest(warmup=warmup), prefix=prefix)
            return int(counted.read_text())

        return (executed(1) - executed(0)) // artefact.batch


def _build(folder: Path, emulator: str, program: Path) -> Path:
    """Compile the plugin for this machine, with the interface version that the emulator takes."""
    need("Counting instructions", "compile")
    from vitc.compiler.link import run_zig, runtime_sources

    reason = ""
    for version in _VERSIONS:
        plugin, counted = folder / f"count{version}.so", folder / f"probe{version}"
        run_zig(
            [
                "-target",
                f"{platform.machine()}-linux-gnu.2.17",
                *("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-fno-sanitize=all"),
                *("-fPIC", "-fvisibility=hidden", "-shared"),
                f"-DVITC_PLUGIN_VERSION={version}",
                str(runtime_sources() / _SOURCE),
                *("-o", str(plugin)),
            ],
            folder,
        )
        # Without arguments the runner explains its use and ends; that is enough to be counted.
        done = subprocess.run(
            [emulator, "-plugin", f"{plugin},out={counted}", str(program)],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
        if counted.is_file():
            return plugin
        said = done.stderr.strip().splitlines()
        reason = said[0] if said else f"exit code {done.returncode}"
        if not _OTHER_VERSION.search(done.stderr):
            break
    raise VitcError(f"{emulator} counts no instructions: {reason}.", _HINT)
