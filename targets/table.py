"""The table of targets: which machine an artefact is for.

To add a target, add one entry here; its `isa` names a row of vitc.targets.isa.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from vitc.errors import VitcError
from vitc.names import Names

__all__ = ["ALIASES", "TARGETS", "TARGET_NAMES", "Target", "find", "host_features"]


@dataclass(frozen=True)
class Target:
    """A machine that vitc compiles for.

    Attributes:
        name: Name on the command line.
        description: One line for `vitc targets`.
        triple: LLVM triple of the kernels.
        cpu: LLVM processor.
        attributes: LLVM features beyond those of the processor, such as `+neon`.
        features: CPU features that the library asks for before it runs, by their names in
            /proc/cpuinfo: all that its instructions come from, since a virtual machine may hide
            some of those that a processor has together.
        isa: Microkernel family, a key of `vitc.targets.isa.ISAS`.
        link: Target of the linker, with the oldest C library that the result runs on.
        runner: Target of the static runner.
        emulator: qemu-user program that runs it elsewhere, without its `qemu-` prefix.
        machine: `platform.machine()` values that run it directly.
        flushes_denormals: Whether its kernels take fp32 numbers below 2^-126 for zero.
    """

    name: str
    description: str
    triple: str
    cpu: str
    attributes: tuple[str, ...]
    features: tuple[str, ...]
    isa: str
    link: str
    runner: str
    emulator: str
    machine: tuple[str, ...]
    flushes_denormals: bool = False

    def __repr__(self) -> str:
        return f"Target({self.name}: {self.description})"

    @property
    def not_emulated(self) -> list[str]:
        """CPU features that qemu has no translation for."""
        return [name for name in self.features if name.startswith(("avx512", "amx"))]


_X86_V2 = Target(
    name="x86-64-v2",
    description="x86-64-v2 (SSE4.2, no AVX)",
    triple="x86_64-linux-gnu",
    cpu="x86-64-v2",
    attributes=(),
    features=("sse4_2", "ssse3", "popcnt"),
    isa="ssse3-pshufb",
    link="x86_64-linux-gnu.2.17",
    runner="x86_64-linux-musl",
    emulator="x86_64",
    machine=("x86_64", "AMD64"),
)
_X86_V3 = replace(
    _X86_V2,
    name="x86",
    description="x86-64-v3 (AVX2)",
    cpu="x86-64-v3",
    features=("avx2", "bmi1", "bmi2", "fma"),
    isa="avx2-pshufb",
)
_X86_AVX512BW = replace(
    _X86_V3,
    name="x86-avx512bw",
    description="x86-64-v4 (AVX-512 BW: Skylake-SP, Cascade Lake and later)",
    cpu="skylake-avx512",
    features=(*_X86_V3.features, "avx512f", "avx512bw", "avx512dq", "avx512vl"),
    isa="avx512-pshufb",
)
_X86_AVX512 = replace(
    _X86_AVX512BW,
    name="x86-avx512",
    description="x86 with AVX-512 VPOPCNTDQ (Ice Lake, Zen 4 and later)",
    cpu="icelake-server",
    features=(
        *_X86_AVX512BW.features, "avx512_vpopcntdq", "avx512_vnni", "avx512ifma", "avx512vbmi",
        "avx512_vbmi2", "avx512_bitalg",
    ),
    isa="avx512-vpopcntdq",
)
_ARM64 = Target(
    name="arm",
    description="any 64-bit ARM Linux (ARMv8-A, NEON)",
    triple="aarch64-linux-gnu",
    # Scheduled for a processor that is common: what LLVM takes for any of them issues in order, and
    # spills. Without what that one has beyond ARMv8-A.
    cpu="cortex-a72",
    attributes=("+neon", "-aes", "-sha2", "-crc", "-perfmon"),
    features=("asimd",),
    isa="neon-cnt",
    link="aarch64-linux-gnu.2.17",
    runner="aarch64-linux-musl",
    emulator="aarch64",
    machine=("aarch64", "arm64"),
)

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        _ARM64,
        replace(
            _ARM64,
            name="rpi4",
            description="Raspberry Pi 4 (Cortex-A72)",
            attributes=("+neon",),
        ),
        replace(
            _ARM64,
            name="rpi5",
            description="Raspberry Pi 5 (Cortex-A76)",
            cpu="cortex-a76",
            attributes=("+neon", "+dotprod"),
            features=("asimd", "asimddp"),
            isa="neon-dot",
        ),
        Target(
            name="armv7",
            description="32-bit ARM Linux with NEON and VFPv4 (hard float)",
            triple="armv7a-linux-gnueabihf",
            cpu="generic",
            attributes=("+neon", "+vfp4", "+v7"),
            features=("neon", "vfpv4"),
            isa="neon32-vcnt",
            link="arm-linux-gnueabihf.2.17",
            runner="arm-linux-musleabihf",
            emulator="arm",
            machine=("armv7l", "armv8l"),
            flushes_denormals=True,
        ),
        replace(
            _ARM64,
            name="android-arm64",
            description="64-bit ARM Android",
            triple="aarch64-linux-android",
            link="aarch64-linux-none",
        ),
        _X86_V2,
        _X86_V3,
        _X86_AVX512BW,
        _X86_AVX512,
        replace(
            _X86_AVX512,
            name="x86-amx",
            description="x86 with AMX-INT8 (Sapphire Rapids and later)",
            # Not sapphirerapids, whose 16-bit floats LLVM uses to move 16-bit integers: AMX aside,
            # the kernels run where x86-avx512 runs, and that is where they can be tested.
            attributes=("+amx-tile", "+amx-int8"),
            features=(*_X86_AVX512.features, "amx_tile", "amx_int8"),
            isa="avx512-amx",
        ),
    )
}

ALIASES: Final = {"x86-64-v3": "x86", "x86-64-v4": "x86-avx512bw"}
"""Other names of targets."""

TARGET_NAMES: Final = Names("target", ("native", *TARGETS, *ALIASES), "see `vitc targets`")
"""What `find` knows."""


def host_features() -> frozenset[str]:
    """CPU features of this machine, by their names in /proc/cpuinfo; empty without that file."""
    path = Path("/proc/cpuinfo")
    if not path.is_file():
        return frozenset()
    for line in path.read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() in {"flags", "Features"}:
            return frozenset(value.split())
    return frozenset()


def find(name: str) -> Target:
    """Return the target of a name; `native` is the best table entry that this machine runs.

    Args:
        name: A key of `TARGETS` or of `ALIASES`, or `native`.

    Raises:
        VitcError: If there is no such target; the nearest is named and the known are listed.
    """
    if name != "native":
        return TARGETS[ALIASES.get(TARGET_NAMES.check(name), name)]
    machine, features = platform.machine(), host_features()
    # Later entries of one machine ask for more, so the last that fits is the best.
    fitting = [
        t
        for t in TARGETS.values()
        if machine in t.machine and features.issuperset(t.features) and "android" not in t.name
    ]
    if not fitting:
        raise VitcError(
            f"No target fits this machine ({machine}).",
            "Name one with --target; `vitc targets` lists them.",
        )
    return fitting[-1]
