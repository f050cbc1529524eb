"""Table: what ARM costs, counted by qemu and modelled by llvm-mca; none of it is measured time."""

from __future__ import annotations

from collections.abc import Callable

from markdown import table
from networks import MAIN, TINY, Network, Workshop

from vitc.bench.estimate import PROCESSORS, estimate
from vitc.devices.instructions import count_instructions
from vitc.errors import VitcError

__all__ = ["arm_table"]

_TARGETS = ("arm", "rpi4", "rpi5", "armv7")
_COUNTED = ("arm", "rpi5", "armv7")
"""For the backbones; of rpi4 only the tiles differ from arm's."""


def arm_table(workshop: Workshop, say: Callable[[str], None]) -> str:
    """DeiT-S counted and modelled, and the tiny backbones counted."""
    try:
        return f"{_modelled(workshop, say)}\n\n{_backbones(workshop, say)}"
    except VitcError as error:
        return str(error)


def _backbones(workshop: Workshop, say: Callable[[str], None]) -> str:
    """Executed instructions of every tiny backbone, with fp32 ends and with int8 ones."""
    rows = []
    for preset in TINY:
        for rounded in (False, True):
            form = Network(preset, None, si=True, rounded=rounded)
            say(f"counting instructions of {form.name}")
            counts = [count_instructions(workshop.artefact(form, name)) for name in _COUNTED]
            rows.append((form.name, *(f"{count / 1e6:.1f} M" for count in counts)))
    columns = ("network", *(f">{name}" for name in _COUNTED))
    return f"{table(columns, rows)}\n\nExecuted instructions, one image, one thread."


def _modelled(workshop: Workshop, say: Callable[[str], None]) -> str:
    """Executed instructions, MACs a cycle in hot loops, and modelled times of DeiT-S."""
    rows = []
    for name in _TARGETS:
        artefact = workshop.artefact(MAIN, name)
        say(f"counting instructions of {name}")
        executed = count_instructions(artefact)
        for processor in (p for p in PROCESSORS.values() if p.counted):
            try:
                found = estimate(artefact, processor.name, executed)
            except VitcError as error:
                say(str(error))
                continue
            rows.append(
                (
                    name,
                    f"{executed / 1e6:.1f} M",
                    processor.name,
                    f"{found.slowest_product:.1f}",
                    f"{found.binary_macs_per_cycle:.1f}",
                    f"{found.hot_instructions / executed:.0%}",
                    f"{found.milliseconds:.0f} ms at {processor.gigahertz} GHz",
                )
            )
    columns = (
        "target",
        ">executed instructions",
        "model of",
        ">binary MAC/cycle, slowest product",
        ">with attention",
        ">instructions in hot loops",
        ">modelled, not measured",
    )
    return (
        f"{table(columns, rows)}\n\n{MAIN.name}, one image, one thread. Instructions are counted "
        "by qemu; MAC/cycle is llvm-mca's for hot loops; the modelled time has no cache misses."
    )
