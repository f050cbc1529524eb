"""Architectures that artefacts are made for: the table that devices look things up in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from vitc.errors import VitcError

__all__ = ["ARCHITECTURES", "Architecture", "architecture"]


@dataclass(frozen=True)
class Architecture:
    """One architecture.

    Attributes:
        machine: As the kernel calls it (``uname -m``).
        prefixes: How target triples of it begin.
        emulator: The qemu-user program that runs it.
    """

    machine: str
    prefixes: tuple[str, ...]
    emulator: str


ARCHITECTURES: Final = (
    Architecture("x86_64", ("x86_64", "amd64"), "qemu-x86_64"),
    Architecture("aarch64", ("aarch64", "arm64"), "qemu-aarch64"),
    Architecture("armv7l", ("arm", "thumb"), "qemu-arm"),
)


def architecture(triple: str) -> Architecture:
    """The architecture of a target triple such as ``aarch64-linux-gnu``.

    Raises:
        VitcError: If it is not in the table; the known ones are listed.
    """
    first = triple.partition("-")[0]
    # The longest prefix decides, so that arm64 is not taken for arm.
    matches = [
        (len(prefix), entry)
        for entry in ARCHITECTURES
        for prefix in entry.prefixes
        if first.startswith(prefix)
    ]
    if not matches:
        known = ", ".join(entry.machine for entry in ARCHITECTURES)
        raise VitcError(f"Unknown architecture in the triple {triple!r}; known: {known}.")
    return max(matches, key=lambda match: match[0])[1]
