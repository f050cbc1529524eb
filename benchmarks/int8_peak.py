"""Peak of the int8 unit (AVX-512 VNNI), which int8 runtimes live on: a register-only loop."""

from __future__ import annotations

import ctypes
import tempfile
import time
from pathlib import Path

import numpy as np
from tvm.script.ir_builder import tirx as T

from vitc.compiler.codegen import emit_object, lower
from vitc.compiler.link import run_zig
from vitc.targets import TARGETS
from vitc.targets.kernels.emitter import Emitter, Kernel
from vitc.targets.table import host_features

__all__ = ["int8_peak"]

_SUMS = 12
_LANES = 16
_MACS = 64
_TASKS = 100_000
_FASTEST_OF = 20
_TARGET = "x86-avx512"


def int8_peak() -> float | None:
    """1e9 uint8 x int8 MACs a second of one core; None where there is no AVX-512 VNNI."""
    target = TARGETS[_TARGET]
    if not host_features().issuperset({*target.features, "avx512_vnni"}):
        return None
    with tempfile.TemporaryDirectory(prefix="vitc-peaks-") as name:
        folder = Path(name)
        emit_object(lower([_kernel()], target), target, folder / "peak.o")
        run_zig(["-target", target.link, "-shared", "-o", "peak.so", "peak.o"], folder)
        library = ctypes.CDLL(str(folder / "peak.so"))
    memory = np.ones(_LANES * 8, np.int32)
    pointer = ctypes.c_void_p(memory.ctypes.data)
    taken = []
    for _ in range(_FASTEST_OF):
        start = time.perf_counter()
        library.int8_peak(pointer, pointer, 0, _TASKS)
        taken.append(time.perf_counter() - start)
    return _TASKS * _SUMS * _MACS / min(taken) / 1e9


def _kernel() -> Kernel:
    """One task is `_SUMS` instructions of `_MACS` products each.

    Arguments of the C function: factors [2, 16 x 4 bytes], out [16] (int32), begin, end.
    """
    emitter = Emitter("int8_peak")
    with emitter.open() as e:
        factors, out = e.pointers(factors="int32", out="int32")
        left, right = (
            T.reinterpret(f"{kind}8x{_MACS}", e.load(factors, slot * _LANES, _LANES))
            for slot, kind in enumerate(("uint", "int"))
        )
        left, right = e.let(left), e.let(right)
        sums = e.local("int32", _SUMS * _LANES)
        for i in range(_SUMS):
            e.store(sums, i * _LANES, e.constant("int32", i, _LANES), _LANES)
        with e.loop(e.begin, e.end):
            for i in range(_SUMS):
                value = T.call_llvm_pure_intrin(
                    f"int32x{_LANES}",
                    "llvm.x86.avx512.vpdpbusd.512",
                    e.load(sums, i * _LANES, _LANES),
                    left,
                    right,
                )
                e.store(sums, i * _LANES, value, _LANES)
        for i in range(1, _SUMS):
            total = e.load(sums, 0, _LANES) + e.load(sums, i * _LANES, _LANES)
            e.store(sums, 0, total, _LANES)
        e.store(out, 0, e.load(sums, 0, _LANES), _LANES)
    return emitter.kernel(1)
