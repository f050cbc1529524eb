"""Temperature, clock and throttling around a run.

What ran hands out files of its machine, before and after: ``vitc-run`` prints them as
``system_files``, over RPC they are read one by one. What they mean is for
`vitc.devices.kernel_files` to say: ``temperature_c`` (the hottest zone), ``governor`` and
``frequency_khz`` (of the first core),
``cooling`` (the sum of the states of the cooling devices that slow a processor down),
``throttle_events`` (a counter of x86) and ``firmware_throttled`` (flags of a Raspberry Pi). What a
system does not offer is absent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from vitc.devices.kernel_files import read_condition

__all__ = ["conditions", "throttling"]

_LONGEST: Final = 64
# Of `vcgencmd get_throttled`: what is so now; the bits from 16 on say what was since the start.
_FIRMWARE: Final = {
    1: "its supply voltage is too low",
    2: "its frequency is capped",
    4: "it is throttled",
    8: "it is at its temperature limit",
}


def conditions(report: Mapping[str, Any]) -> dict[str, Any]:
    """What a runner's report says, as facts; empty if it says nothing.

    Anything of another type than expected is left out: the report may come from another machine.
    """
    found = report.get("system_files")
    if not isinstance(found, Mapping):
        return {}
    return {"conditions": {when: _state(found.get(when)) for when in ("before", "after")}}


def _state(files: Any) -> dict[str, Any]:
    if not isinstance(files, Mapping):
        return {}

    def read(path: str) -> str:
        text = files.get(path)
        return text[:_LONGEST] if isinstance(text, str) else ""

    return read_condition(read)


def throttling(facts: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for each sign that a machine was slowed down during a run."""
    around = facts.get("conditions", {})
    before, after = around.get("before", {}), around.get("after", {})
    if after.get("throttle_events", 0) > before.get("throttle_events", 0):
        yield "the processor was throttled during the runs"
    if after.get("cooling", 0) > 0:
        yield "the system slows the processor down to cool it"
    flags = int(after.get("firmware_throttled", 0))
    for bit, text in _FIRMWARE.items():
        if flags & bit:
            yield f"the firmware says: {text}"
    if after.get("governor") in ("powersave", "conservative"):
        yield f"the frequency governor is {after['governor']}"
