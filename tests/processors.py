"""Which targets' code the processor of this machine executes, alone or with the emulator of AMX."""

from __future__ import annotations

import platform
from dataclasses import replace
from typing import Final

import pytest

from vitc.targets.isa import ISAS
from vitc.targets.table import TARGETS, Target, find, host_features

__all__ = ["HAS_AMX", "HOST", "NATIVE", "NO_AVX512", "SHAPED", "of_shape"]

# The emulator of tests/amx executes it where a processor has none.
_EMULATED: Final = {"amx_tile", "amx_int8"}

HAS_AMX: Final = host_features().issuperset(TARGETS["x86-amx"].features)

NATIVE: Final = "x86-avx512" if HAS_AMX else "native"
"""This machine's target without AMX, whose steps for signs tests that count steps leave out."""

HOST: Final = [
    name
    for name, target in TARGETS.items()
    if platform.machine() in target.machine
    and "android" not in name
    and (host_features() | _EMULATED).issuperset(target.features)
]

NO_AVX512: Final = "this processor has no AVX-512 with VPOPCNTDQ"

SHAPED: Final = (
    ("avx512-vpopcntdq", "avx512-pshufb") if platform.machine() in TARGETS["x86"].machine else ()
)
"""Instruction sets whose lanes and tiles are tried on any x86 processor, with its instructions."""


def of_shape(isa: str, monkeypatch: pytest.MonkeyPatch) -> Target:
    """A target that any x86 processor executes, with the lanes and tiles of an instruction set."""
    shape = ISAS[isa]
    narrow = "ssse3-pshufb" if shape.narrow else ""
    plain = replace(shape, shuffle="", ternary="", adds_words="", narrow=narrow)
    monkeypatch.setitem(ISAS, isa, plain)
    return replace(find("x86-64-v2"), isa=isa)
