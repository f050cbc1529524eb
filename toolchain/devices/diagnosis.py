"""What vitc needs on this machine, and whether it is there."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from typing import Final, Literal, TypeAlias

from vitc.devices.machine import machine
from vitc.devices.qemu import INSTALL_HINT, find_emulator
from vitc.errors import VitcError
from vitc.targets import TARGETS, find

__all__ = ["Finding", "State", "diagnose"]

State: TypeAlias = Literal["ok", "optional", "missing"]

_DISTRIBUTION: Final = "vitc"
_LINKER_TIMEOUT_S: Final = 60


@dataclass(frozen=True)
class Finding:
    """One thing that was looked for.

    Attributes:
        what: Its name.
        state: ``ok``, ``optional`` (not here, vitc runs without) or ``missing`` (needed).
        found: What is here.
        advice: What to do about it; empty if nothing.
    """

    what: str
    state: State
    found: str
    advice: str = ""


def diagnose() -> list[Finding]:
    """Look for interpreter, packages, linker, processor features and emulators."""
    return [_python(), *_packages(), _linker(), _processor(), *_emulators()]


def _python() -> Finding:
    found = ".".join(str(part) for part in sys.version_info[:3])
    return Finding("python", "ok", found)


def _packages() -> Iterator[Finding]:
    for requirement in metadata.requires(_DISTRIBUTION) or ():
        if "extra ==" in requirement:
            continue
        name = re.split(r"[\s<>=!~;\[]", requirement, maxsplit=1)[0]
        try:
            yield Finding(name, "ok", metadata.version(name))
        except metadata.PackageNotFoundError:
            yield Finding(
                name, "missing", "not installed", f"python -m pip install '{requirement}'"
            )


def _linker() -> Finding:
    if find_spec("ziglang") is None:
        return Finding("linker", "missing", "no ziglang", "python -m pip install ziglang")
    try:
        done = subprocess.run(
            [sys.executable, "-m", "ziglang", "version"],
            capture_output=True,
            text=True,
            timeout=_LINKER_TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        return Finding(
            "linker", "missing", str(error), "python -m pip install --force-reinstall ziglang"
        )
    return Finding("linker", "ok", f"zig {done.stdout.strip()}")


def _processor() -> Finding:
    facts = machine()
    try:
        target = find("native")
    except VitcError as error:
        return Finding("processor", "optional", facts.cpu, str(error))
    features = ", ".join(target.features)
    return Finding("processor", "ok", f"{facts.cpu}; native is {target.name} ({features})")


def _emulators() -> Iterator[Finding]:
    here = machine().architecture
    wanted = {f"qemu-{t.emulator}": t for t in TARGETS.values() if here not in t.machine}
    for name in wanted:
        path = find_emulator(name)
        if path is None:
            yield Finding(name, "optional", "not installed", INSTALL_HINT)
        else:
            yield Finding(name, "ok", path)
