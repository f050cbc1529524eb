"""What this machine's units can do at most, measured on the spot.

These are the denominators of every "fraction of the peak". A kernel that gets by without counting
bits one vector at a time, as those with a table of popcounts do, can exceed the popcount peak.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from vitc.compiler.assembly import TILE_MACS
from vitc.errors import VitcError
from vitc.extras import need
from vitc.places import scratch_folder
from vitc.targets import Target
from vitc.targets.isa import ISAS

__all__ = ["PeakLoops", "Peaks", "permit_tiles"]

_ALIGNMENT: Final = 64
_BYTES: Final = 4096
_SECONDS: Final = 2e-3
_FASTEST_OF: Final = 10
# arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) of Linux on x86-64.
_ARCH_PRCTL: Final = ctypes.c_long(158)
_REQUEST_PERMISSION: Final = ctypes.c_long(0x1023)
_TILE_DATA: Final = ctypes.c_long(18)


@dataclass(frozen=True)
class Peaks:
    """Peaks of one core, from registers only.

    Attributes:
        isa: Instructions that were used, a key of `vitc.targets.isa.ISAS`.
        popcount_gmacs: 1e9 binary MACs a second: XOR, popcount, add.
        fma_gmacs: 1e9 fp32 multiply-adds a second.
        int8_gmacs: 1e9 int8 MACs a second on AMX tiles; 0 without them.
    """

    isa: str
    popcount_gmacs: float
    fma_gmacs: float
    int8_gmacs: float = 0.0

    def faster(self, other: Peaks) -> Peaks:
        """The better of two measurements, each unit by itself."""
        return Peaks(
            self.isa,
            max(self.popcount_gmacs, other.popcount_gmacs),
            max(self.fma_gmacs, other.fma_gmacs),
            max(self.int8_gmacs, other.int8_gmacs),
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


class PeakLoops:
    """The peak kernels of one target, loaded into this process to be timed again and again.

    Args:
        target: A target that this machine runs.

    Raises:
        VitcError: If Linux does not let this process use the AMX tiles that the target has.
    """

    def __init__(self, target: Target) -> None:
        need("A profile on this machine", "compile")
        from vitc.compiler.codegen import emit_object, lower
        from vitc.compiler.link import run_zig
        from vitc.targets.kernels import peak
        from vitc.targets.kernels.popcount_tile import BYTE_STEPS

        self._isa = isa = ISAS[target.isa]
        kernels = [peak.popcount_kernel("popcount", isa), peak.fma_kernel("fma", isa)]
        if isa.amx:
            permit_tiles()
            kernels.append(peak.tile_kernel("tiles"))
        with scratch_folder("peaks") as folder:
            emit_object(lower(kernels, target), target, folder / "peaks.o")
            run_zig(["-target", target.link, "-shared", "-o", "peaks.so", "peaks.o"], folder)
            library = ctypes.CDLL(str(folder / "peaks.so"))
        # With halves no sum leaves the normal numbers, beyond which some machines are slow.
        factors = _aligned(np.full(_BYTES // 4, 0.5, np.float32))
        bits = _aligned(np.random.default_rng(0).integers(0, 256, _BYTES, dtype=np.uint8))
        out = _aligned(np.zeros(_BYTES, np.uint8))
        self._popcount = partial(library.popcount, *_pointers(bits, bits, out))
        self._fma = partial(library.fma, *_pointers(factors, out))
        self._kept = (factors, bits, out)
        step = peak.POPCOUNT_SUMS * isa.lanes * isa.element_bits
        self._popcount_macs = BYTE_STEPS * step
        self._fma_macs = peak.FMA_SUMS * isa.float_lanes
        self._tile_macs = peak.TILE_SUMS * TILE_MACS
        self._popcount_tasks = _tasks(self._popcount)
        self._fma_tasks = _tasks(self._fma)
        self._tiles = partial(library.tiles, *_pointers(bits, out)) if isa.amx else None
        self._tile_tasks = _tasks(self._tiles) if self._tiles else 0

    def measure(self) -> Peaks:
        """Measure the peaks once; the fastest of ten runs of about 2 ms each."""
        popcount = _fastest(self._popcount, self._popcount_tasks)
        fma = _fastest(self._fma, self._fma_tasks)
        tiles = _fastest(self._tiles, self._tile_tasks) if self._tiles else float("inf")
        return Peaks(
            self._isa.name,
            self._popcount_tasks * self._popcount_macs / popcount / 1e9,
            self._fma_tasks * self._fma_macs / fma / 1e9,
            self._tile_tasks * self._tile_macs / tiles / 1e9,
        )


def permit_tiles() -> None:
    """Ask Linux for the use of AMX tiles in this process.

    Raises:
        VitcError: If it refuses.
    """
    library = ctypes.CDLL(None)
    if library.syscall(_ARCH_PRCTL, _REQUEST_PERMISSION, _TILE_DATA):
        raise VitcError(
            "Linux does not permit this process to use AMX tiles.",
            "That takes Linux 5.16 or newer; compile for x86-avx512 to do without.",
        )


def _aligned(values: NDArray[Any]) -> NDArray[np.uint8]:
    """The bytes of an array at an address that no vector load straddles."""
    source = values.reshape(-1).view(np.uint8)
    memory = np.zeros(source.size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    memory[start : start + source.size] = source
    return memory[start : start + source.size]


def _pointers(*arrays: NDArray[np.uint8]) -> Sequence[ctypes.c_void_p]:
    return [ctypes.c_void_p(array.ctypes.data) for array in arrays]


def _fastest(call: Callable[[int, int], object], tasks: int) -> float:
    """Seconds of the fastest run."""
    times = []
    for _ in range(_FASTEST_OF):
        start = time.perf_counter()
        call(0, tasks)
        times.append(time.perf_counter() - start)
    return min(times)


def _tasks(call: Callable[[int, int], object]) -> int:
    """Tasks that take about `_SECONDS`."""
    tasks = 256
    while (taken := _fastest(call, tasks)) < _SECONDS / 4:
        tasks *= 2
    return max(1, round(tasks * _SECONDS / taken))
