"""`vitc targets`: the table of targets."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vitc.cli.options import Force, JsonTo
from vitc.cli.output import Output
from vitc.cli.tables import table

if TYPE_CHECKING:
    from vitc.targets import Target

__all__ = ["targets"]


def targets(json_to: JsonTo = None, force: Force = False) -> None:
    """List what vitc compiles for, and what of it runs on this machine."""
    from dataclasses import asdict

    from vitc.errors import VitcError
    from vitc.targets import TARGETS, find
    from vitc.targets.table import host_features

    output = Output(json_to, force=force)
    machine, features = platform.machine(), host_features()
    here = {
        name
        for name, target in TARGETS.items()
        if machine in target.machine and features.issuperset(target.features)
    }
    try:
        native = find("native").name
    except VitcError:
        native = ""
    output.show(
        table(
            ("target", "for", "needs", "runs here"),
            [
                (
                    target.name + (" (native)" if target.name == native else ""),
                    target.description,
                    " ".join(target.features),
                    _how(target, here, target.not_emulated),
                )
                for target in TARGETS.values()
            ],
        )
    )
    output.result(
        {
            "native": native or None,
            "targets": [
                asdict(target) | {"runs_here": target.name in here} for target in TARGETS.values()
            ],
        }
    )


def _how(target: Target, here: set[str], beyond: Sequence[str]) -> str:
    from vitc.devices.qemu import find_emulator

    if target.name in here:
        return "yes"
    if beyond:
        return "no"
    emulator = f"qemu-{target.emulator}"
    return emulator if find_emulator(emulator) is not None else f"needs {emulator}"
