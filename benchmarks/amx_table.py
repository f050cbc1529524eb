"""Table: what AMX tiles are modelled to give on a processor that has them; nothing is measured."""

from __future__ import annotations

from collections.abc import Callable

from markdown import table
from networks import MAIN, Workshop

from vitc.bench.estimate import PROCESSORS, estimate
from vitc.errors import VitcError

__all__ = ["amx_table"]

_TARGETS = ("x86-amx", "x86-avx512")
_PROCESSOR = "sapphire-rapids"


def amx_table(workshop: Workshop, say: Callable[[str], None]) -> str:
    """Modelled cycles and times of DeiT-S, beside sizes."""
    clock = PROCESSORS[_PROCESSOR].gigahertz
    rows = []
    for name in _TARGETS:
        artefact = workshop.artefact(MAIN, name)
        say(f"modelling {name} on {_PROCESSOR}")
        try:
            found = estimate(artefact, _PROCESSOR)
        except VitcError as error:
            return str(error)
        rows.append(
            (
                name,
                f"{found.cycles / 1e6:.1f} M",
                f"{found.milliseconds:.2f} ms",
                f"{artefact.manifest.workspace_bytes / 1e6:.2f} MB",
                f"{artefact.library.stat().st_size / 1e6:.2f} MB",
            )
        )
    columns = ("target", ">modelled cycles", f">at {clock:.1f} GHz", ">workspace", ">library")
    return (
        f"{table(columns, rows)}\n\n{MAIN.name}, one image, one thread, model of {_PROCESSOR} by "
        "llvm-mca, not measured."
    )
