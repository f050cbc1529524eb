"""Facts about this machine that a measurement depends on."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

__all__ = ["Machine", "describe_cpu", "machine", "usable_cores"]

_CPUINFO = Path("/proc/cpuinfo")
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
# x86 says "flags" and "model name", ARM "Features" and "Model" or "CPU part".
_FEATURE_KEYS = ("flags", "Features")
_MODEL_KEYS = ("model name", "Model", "Hardware", "CPU part")


@dataclass(frozen=True)
class Machine:
    """What a measurement depends on.

    Attributes:
        architecture: As the kernel calls it, such as ``aarch64``.
        cpu: Model name, or the best the kernel offers.
        features: Instruction set extensions as the kernel lists them, sorted.
        cores: Cores that this process may use.
        governor: Frequency governor; None where the system does not say.
        load: Load average over one minute; None where the system does not say.
        system: Kernel name and release.
    """

    architecture: str
    cpu: str
    features: tuple[str, ...]
    cores: int
    governor: str | None
    load: float | None
    system: str

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self) | {"features": list(self.features)}


def machine() -> Machine:
    """Facts about this machine; what it does not say is empty or None."""
    cpu, features = describe_cpu(_cpuinfo())
    return Machine(
        architecture=platform.machine(),
        cpu=cpu or platform.processor(),
        features=features,
        cores=len(usable_cores()),
        governor=_first_line(_GOVERNOR),
        load=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        system=f"{platform.system()} {platform.release()}",
    )


def usable_cores() -> list[int]:
    """Numbers of the cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def describe_cpu(cpuinfo: str) -> tuple[str, tuple[str, ...]]:
    """Model name, or an empty text, and sorted features, from the text of /proc/cpuinfo."""
    info: dict[str, str] = {}
    for key, _, value in (line.partition(":") for line in cpuinfo.splitlines() if ":" in line):
        info.setdefault(key.strip(), value.strip())
    features = next((info[key] for key in _FEATURE_KEYS if key in info), "")
    model = next((info[key] for key in _MODEL_KEYS if key in info), "")
    return model, tuple(sorted(features.split()))


def _cpuinfo() -> str:
    try:
        return _CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _first_line(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except OSError:
        return None
