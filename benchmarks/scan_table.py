"""Table: scans of packed vectors that lie in the caches, as shares of the popcount peak.

    python benchmarks/scan_table.py            prints it
    python benchmarks/scan_table.py --write    into docs/retrieval.md

Every kernel is timed in turns with the register-only loop that is its peak; both are minima, so a
machine that does other things besides gives the same shares.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from markdown import replace_section, table
from numpy.typing import NDArray

from vitc.bench.peaks import PeakLoops, Peaks
from vitc.compiler.codegen import emit_object, lower
from vitc.compiler.link import run_zig
from vitc.compiler.pipeline import make_plan
from vitc.devices.machine import machine
from vitc.dialect.scan_graph import scan_graph
from vitc.targets.table import TARGETS, Target, host_features

_DOCUMENT: Final = Path(__file__).parents[1] / "docs" / "retrieval.md"
_BYTES: Final = 512 << 10
"""Of documents and scores together: in the second-level cache."""
_ROUNDS: Final = 25
_TIMER: Final = """
#include <time.h>
typedef void kernel(const void *, const void *, void *, int, int);
double fastest(kernel *run, const void *queries, const void *documents, void *scores, int n,
               int tries) {
  double best = 1e9;
  for (int i = 0; i < tries; i++) {
    struct timespec a, b;
    clock_gettime(CLOCK_MONOTONIC, &a);
    run(queries, documents, scores, 0, n);
    clock_gettime(CLOCK_MONOTONIC, &b);
    double taken = b.tv_sec - a.tv_sec + 1e-9 * (b.tv_nsec - a.tv_nsec);
    if (taken < best) best = taken;
  }
  return best;
}
"""


@dataclass(frozen=True)
class Scan:
    """A scan: texts at once, vectors of a text and of a document, bits of a vector."""

    texts: int
    queries: int
    documents: int
    width: int

    def __str__(self) -> str:
        if self.queries > 1:
            return f"{self.queries} x {self.documents} vectors of {self.width} bits"
        many = "one query" if self.texts == 1 else f"{self.texts} queries"
        return f"{many}, {self.width} bits"

    @property
    def macs(self) -> int:
        """Of a document."""
        return self.texts * self.queries * self.documents * self.width

    @property
    def images(self) -> int:
        """How many there are."""
        return _BYTES // (self.documents * -(-self.width // 8) + 4 * self.texts)


_SCANS: Final = (
    *(Scan(1, 1, 1, width) for width in (64, 128, 256, 384, 512, 768, 1024)),
    *(Scan(texts, 1, 1, 256) for texts in (2, 4, 8, 32)),
    *(Scan(1, count, count, 256) for count in (16, 20, 32)),
)


class Kernels:
    """The scans of a target and its peak, loaded to be timed."""

    def __init__(self, target: Target, folder: Path) -> None:
        self.peak_loops = PeakLoops(target)
        self.peak: Peaks | None = None
        kernels = []
        for number, scan in enumerate(_SCANS):
            texts = None if scan.texts == 1 else scan.texts
            graph = scan_graph(scan.queries, scan.documents, scan.width, texts=texts)
            *_, step = make_plan(graph, target, []).steps
            kernels.append(replace(step.kernel, symbol=f"scan_{number}"))
        emit_object(lower(kernels, target), target, folder / "k.o")
        (folder / "timer.c").write_text(_TIMER)
        run_zig(["-O2", "-shared", "-fPIC", "-o", "k.so", "k.o", "timer.c"], folder)
        self._library = ctypes.CDLL(str(folder / "k.so"))
        self._library.fastest.restype = ctypes.c_double
        self.seconds = [float("inf")] * len(_SCANS)

    def measure(self, memory: tuple[NDArray[np.uint8], ...]) -> None:
        """Time everything once."""
        found = self.peak_loops.measure()
        self.peak = found if self.peak is None else found.faster(self.peak)
        places = [ctypes.c_void_p(part.ctypes.data) for part in memory]
        for number, scan in enumerate(_SCANS):
            run = getattr(self._library, f"scan_{number}")
            taken = self._library.fastest(run, *places, scan.images, 5)
            self.seconds[number] = min(self.seconds[number], taken)

    def cell(self, number: int) -> str:
        """1e9 binary MACs a second, and their share of the peak."""
        scan = _SCANS[number]
        rate = scan.images * scan.macs / self.seconds[number] / 1e9
        peak = self.peak.popcount_gmacs if self.peak else float("inf")
        return f"{rate:.0f} ({rate / peak:.0%})"


def _memory(size: int) -> NDArray[np.uint8]:
    memory = np.random.default_rng(0).integers(0, 256, size + 64, dtype=np.uint8)
    return memory[-memory.ctypes.data % 64 :][:size]


def _text(names: list[str]) -> str:
    memory = (_memory(1 << 16), _memory(_BYTES + (1 << 14)), _memory(_BYTES))
    with tempfile.TemporaryDirectory(prefix="vitc-scans-") as place:
        made = []
        for name in names:
            (folder := Path(place) / name).mkdir()
            made.append(Kernels(TARGETS[name], folder))
        for _ in range(_ROUNDS):
            for kernels in made:
                kernels.measure(memory)
    rows = [
        [str(scan), *(kernels.cell(number) for kernels in made)]
        for number, scan in enumerate(_SCANS)
    ]
    peaks = [f"{kernels.peak.popcount_gmacs:.0f}" for kernels in made if kernels.peak]
    head = table(["scan", *(f">{name}" for name in names)], [["peak", *peaks], *rows])
    said = (
        f"1e9 binary MACs a second of one thread and their share of the popcount peak; minima of "
        f"{_ROUNDS} rounds in turns, documents and scores in the second-level cache; "
        f"{machine().cpu}."
    )
    return f"{head}\n\n{said}"


def main() -> None:
    """Print the table, or write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"into {_DOCUMENT.name}")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    can = host_features()
    wanted = ("x86-64-v2", "x86", "x86-avx512bw", "x86-avx512", "arm")
    text = _text([name for name in wanted if can.issuperset(TARGETS[name].features)])
    if arguments.write:
        replace_section(_DOCUMENT, "scans", text)
    else:
        print(text)


if __name__ == "__main__":
    main()
