"""Builds one kernel for this machine and calls it on NumPy arrays."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.processors import HOST, SHAPED, of_shape
from vitc.compiler.codegen import emit_object, lower
from vitc.compiler.link import run_zig
from vitc.targets.isa import ISAS
from vitc.targets.table import TARGETS, Target

GUARD = 256


def aligned(size: int, fill: int = 0) -> np.ndarray:
    memory = np.full(size + 64, fill, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size]


@pytest.fixture(params=[*HOST, *SHAPED])
def target(request, monkeypatch) -> Target:
    if request.param in SHAPED:
        return of_shape(request.param, monkeypatch)
    chosen = TARGETS[request.param]
    if ISAS[chosen.isa].amx:
        request.getfixturevalue("amx")
    return chosen


@pytest.fixture
def isa(target):
    return ISAS[target.isa]


@pytest.fixture
def call(target, tmp_path: Path) -> Callable[..., np.ndarray]:
    """Compile a kernel, run it in two uneven parts, and return the bytes of its output."""

    def run(kernel, operands, out_size: int) -> np.ndarray:
        emit_object(lower([kernel], target), target, tmp_path / "k.o")
        run_zig(["-shared", "-o", "k.so", "k.o"], tmp_path)
        function = getattr(ctypes.CDLL(str(tmp_path / "k.so")), kernel.symbol)
        kept = []
        for operand in operands:
            flat = np.ascontiguousarray(operand).reshape(-1).view(np.uint8)
            # The last vector of an array may be loaded whole; the product pads its constants alike.
            memory = aligned(-(-flat.size // 64) * 64 + 64)
            memory[: flat.size] = flat
            kept.append(memory)
        # Stale bytes in the output must all be overwritten, and nothing behind it.
        out = aligned(out_size + GUARD, fill=0xA5)
        pointers = [ctypes.c_void_p(a.ctypes.data) for a in [*kept, out]]
        middle = kernel.tasks // 3
        function(*pointers, 0, middle)
        function(*pointers, middle, kernel.tasks)
        assert (out[out_size:] == 0xA5).all(), "the kernel wrote behind its output"
        return out[:out_size].copy()

    return run
