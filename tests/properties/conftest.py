"""How many inputs of a property are tried, and a kernel on this machine for any shape."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import settings

from tests.suite.property_profile import MORE_EXAMPLES
from vitc.compiler.codegen import emit_object, lower
from vitc.compiler.link import run_zig
from vitc.targets.table import Target


def examples(short: int) -> settings:
    """Number of examples of a property: `short`, unless more are asked for."""
    return settings(max_examples=max(short, MORE_EXAMPLES))


def _aligned(size: int, fill: int = 0) -> np.ndarray:
    memory = np.full(size + 64, fill, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size]


@pytest.fixture
def call(amx, tmp_path) -> Callable[..., np.ndarray]:
    """Compile a kernel for a target, run it in two uneven parts, return its output's bytes."""
    number = iter(range(1 << 30))

    def run(target: Target, kernel, operands, size: int) -> np.ndarray:
        name = f"k{next(number)}"
        emit_object(lower([kernel], target), target, tmp_path / f"{name}.o")
        run_zig(["-shared", "-o", f"{name}.so", f"{name}.o"], tmp_path)
        function = getattr(ctypes.CDLL(str(tmp_path / f"{name}.so")), kernel.symbol)
        kept = []
        for operand in operands:
            flat = np.ascontiguousarray(operand).reshape(-1).view(np.uint8)
            memory = _aligned(-(-flat.size // 64) * 64 + 64)
            memory[: flat.size] = flat
            kept.append(memory)
        out = _aligned(size + 256, 0xA5)
        pointers = [ctypes.c_void_p(a.ctypes.data) for a in [*kept, out]]
        middle = kernel.tasks // 3
        function(*pointers, 0, middle)
        function(*pointers, middle, kernel.tasks)
        assert (out[size:] == 0xA5).all(), "the kernel wrote behind its output"
        return out[:size].copy()

    return run
