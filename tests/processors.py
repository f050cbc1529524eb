"""Which targets' code the processor of this machine executes, alone or with the emulator of AMX."""

from __future__ import annotations

import platform
from typing import Final

from vitc.targets.table import TARGETS, host_features

__all__ = ["HAS_AMX", "HOST", "NO_AVX512"]

# The emulator of tests/amx executes it where a processor has none.
_EMULATED: Final = {"amx_tile", "amx_int8"}

HAS_AMX: Final = host_features().issuperset(TARGETS["x86-amx"].features)

HOST: Final = [
    name
    for name, target in TARGETS.items()
    if platform.machine() in target.machine
    and "android" not in name
    and (host_features() | _EMULATED).issuperset(target.features)
]

NO_AVX512: Final = "this processor has no AVX-512 with VPOPCNTDQ"
