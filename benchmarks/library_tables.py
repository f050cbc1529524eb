"""Tables about one library: time by layer, a second thread, memory and start."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import numpy as np
from contenders import OwnLibrary, pinned, race
from markdown import table
from networks import MAIN, Workshop, networks

from vitc.bench.profile import LayerTime, profile
from vitc.devices import LocalDevice, RunRequest
from vitc.devices.machine import usable_cores

__all__ = ["layer_table", "memory_table", "thread_table"]

Say = Callable[[str], None]

_STARTS = 11


def layer_table(workshop: Workshop, say: Say, target: str = "native") -> str:
    """Time of DeiT-S by layer, beside the peaks."""
    artefact = workshop.artefact(MAIN, target)
    if artefact.missing_features():
        return f"This machine does not run {target}."
    with pinned(1):
        found = profile(artefact, LocalDevice(), 1, say, pin=True)
    columns = ("layer", ">ms", ">share", ">binary MMAC", ">fp32 MMAC", ">of peak", "unit")
    rows = [_layer(layer, found.milliseconds) for layer in found.layers()]
    rows.append(_layer(found.binary(), found.milliseconds))
    peaks = found.peaks
    return (
        f"{table(columns, rows)}\n\n{MAIN.name}, target {artefact.target.name}, one pinned thread, "
        f"fastest of {found.runs} runs in rounds, sum {found.milliseconds:.2f} ms; peaks "
        f"{peaks.popcount_gmacs:.0f} G binary MAC/s and {peaks.fma_gmacs:.1f} G fp32 MAC/s."
    )


def _layer(layer: LayerTime, total: float) -> tuple[str, ...]:
    return (
        layer.name if layer.steps == 1 else f"{layer.name} ({layer.steps})",
        f"{layer.milliseconds:.3f}",
        f"{layer.milliseconds / total:.1%}",
        f"{layer.macs.binary / 1e6:.1f}",
        f"{layer.macs.fp / 1e6:.1f}",
        "" if layer.peak is None else f"{layer.peak:.0%}",
        layer.unit or "",
    )


def thread_table(workshop: Workshop, runs: int, say: Say) -> str:
    """DeiT-S on two threads against one."""
    if len(usable_cores()) < 2:
        return "This machine has one core."
    say("timing two threads")
    artefact = workshop.artefact(MAIN, "native")
    contenders = {"one": OwnLibrary(artefact, 1), "two": OwnLibrary(artefact, 2)}
    with pinned(2):
        found = race(contenders, runs)
    one, two = found["one"], found["two"]
    row = (
        MAIN.name,
        f"{one.median:.2f} ms ({one.min:.2f})",
        f"{two.median:.2f} ms ({two.min:.2f})",
        f"**{one.median / two.median:.2f}x** ({one.min / two.min:.2f}x)",
    )
    return table(("network", ">one thread", ">two threads", ">ratio"), [row])


def memory_table(workshop: Workshop, say: Say, *, quick: bool) -> str:
    """Workspace, library size and start of each network."""
    rows = []
    for network in networks(quick=quick):
        say(f"starting {network.name}")
        artefact = workshop.artefact(network, "native")
        image = np.zeros((1, *artefact.image_shape), np.float32)
        with pinned(1):
            starts = [
                LocalDevice().run(artefact, image, RunRequest()).start_ns for _ in range(_STARTS)
            ]
        sizes = artefact.manifest.sizes
        rows.append(
            (
                network.name,
                f"{artefact.manifest.workspace_bytes / 1e6:.2f} MB",
                f"{sizes['weights'] / 1e6:.2f} MB",
                f"{sizes['library'] / 1e6:.2f} MB",
                f"{statistics.median(starts) / 1e6:.1f} ms",
            )
        )
    columns = ("network", ">workspace", ">weights", ">library", ">start")
    return (
        f"{table(columns, rows)}\n\nStart: map, check and create, and the first image; median of "
        f"{_STARTS} processes, files cached by the system."
    )
