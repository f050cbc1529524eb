"""Which features of an x86 processor instructions come from.

A library asks a processor for the features of its target before it runs. LLVM takes instructions of
the target's processor, all of which have more: an instruction of a feature that is not asked for
ends a program where a virtual machine hides that one.
"""

from __future__ import annotations

import re
from typing import Final

from vitc.targets import Target

FROM: Final = {
    "bmi1": r"andn|blsr|blsi|blsmsk|bextr|tzcnt",
    "bmi2": r"shlx|shrx|sarx|rorx|mulx|pdep|pext|bzhi",
    "abm": r"lzcnt",
    "movbe": r"movbe",
    "f16c": r"vcvtp[hs]2p[hs]x?",
    "fma": r"vfn?m(add|sub)\d+[ps][sd]",
    "gfni": r"v?gf2p8.*",
    "avx512cd": r"vpconflict[dq]|vplzcnt[dq]",
    "avx512_vpopcntdq": r"vpopcnt[dq]",
    "avx512_bitalg": r"vpopcnt[bw]|vpshufbitqmb",
    "avx512_vnni": r"vpdp(busd|wssd)s?",
    "avx512ifma": r"vpmadd52.*",
    "avx512vbmi": r"vperm[it]2b|vpermb|vpmultishiftqb",
    "avx512_vbmi2": r"vpsh[lr]dv?[wdq]|vp(compress|expand)[bw]",
}
"""Regular expressions of mnemonics without the letter for the size of a general register."""


def undeclared(assembly: str, target: Target) -> set[str]:
    """Features of instructions that the target does not ask for."""
    used = set(re.findall(r"^\s+([a-z]\w+)", assembly, re.MULTILINE))
    return {
        feature
        for feature, pattern in FROM.items()
        if feature not in target.features
        and any(re.fullmatch(f"({pattern})[wlq]?", mnemonic) for mnemonic in used)
    }
