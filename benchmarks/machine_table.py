"""Table: the machine, and the peaks of its units measured on one core."""

from __future__ import annotations

import time
from importlib.metadata import version

import numpy as np
from contenders import pinned
from int8_peak import int8_peak
from markdown import table

from vitc.bench.peaks import PeakLoops
from vitc.devices.machine import machine
from vitc.targets import TARGETS
from vitc.targets.table import host_features

__all__ = ["machine_table"]

_ROUNDS = 5
_COPIED_BYTES = 128 << 20


def machine_table() -> str:
    """The machine, and popcount, FMA, int8 and copy peaks."""
    facts = machine()
    load = "unknown" if facts.load is None else f"{facts.load:.1f}"
    head = (
        f"{facts.cpu}, {facts.cores} cores, {facts.system}, load {load} at the start; "
        f"ONNX Runtime {version('onnxruntime')}, vitc {version('vitc')}, one core:"
    )
    here = [
        target
        for target in TARGETS.values()
        if facts.architecture in target.machine
        and host_features().issuperset(target.features)
        and "android" not in target.name
    ]
    rows = []
    with pinned(1):
        # One target an instruction set is enough: the peak loops are the same.
        for target in {target.isa: target for target in here}.values():
            loops = PeakLoops(target)
            peaks = loops.measure()
            for _ in range(_ROUNDS - 1):
                peaks = peaks.faster(loops.measure())
            unit = f"{target.isa} ({target.name})"
            rows.append((f"popcount, {unit}", f"{peaks.popcount_gmacs:.0f} G binary MAC/s"))
            rows.append((f"FMA, {unit}", f"{peaks.fma_gmacs:.1f} G fp32 MAC/s"))
            if peaks.int8_gmacs:
                rows.append((f"tiles, {unit}", f"{peaks.int8_gmacs:.0f} G int8 MAC/s"))
        int8 = int8_peak()
        if int8 is not None:
            rows.append(("int8, AVX-512 VNNI", f"{int8:.0f} G uint8 x int8 MAC/s"))
        rows.append(("copy, 128 MiB", f"{_copy():.1f} GB/s read and as much written"))
    return f"{head}\n\n{table(('unit', '>peak'), rows)}"


def _copy() -> float:
    """1e9 bytes a second that one core copies, beyond all caches."""
    source, target = (np.ones(_COPIED_BYTES, np.uint8) for _ in range(2))
    taken = []
    for _ in range(_ROUNDS):
        start = time.perf_counter()
        np.copyto(target, source)
        taken.append(time.perf_counter() - start)
    return _COPIED_BYTES / min(taken) / 1e9
