"""What a machine's files in /proc and /sys say about it, for a machine whose files can be read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import takewhile
from pathlib import PurePath
from typing import Any, Final, TypeAlias

from vitc.devices.machine import Machine, describe_cpu

__all__ = ["Read", "condition_files", "describe_machine", "read_condition"]

Read: TypeAlias = Callable[[str], str]
"""From the path of a file to its text, which is empty if there is none."""

_CPU: Final = "/sys/devices/system/cpu"
_GOVERNOR: Final = f"{_CPU}/cpu0/cpufreq/scaling_governor"
_MOST: Final = 256


def describe_machine(read: Read, architecture: str) -> dict[str, Any]:
    """The fields of `vitc.devices.machine.Machine`, and ``emulator`` if the program is emulated.

    Args:
        read: Reads a file of the machine, from within the program that runs there.
        architecture: As the kernel calls it.
    """
    # qemu gives its guest a guest's /proc/self, but not this name of the same folder.
    emulator = PurePath(read("/proc/thread-self/cmdline").partition("\0")[0]).name
    emulated = emulator.startswith("qemu-")
    cpu, features = describe_cpu(read("/proc/cpuinfo"))
    load = read("/proc/loadavg").split()
    found = Machine(
        architecture=architecture,
        # Under an emulator, the processor that the kernel describes is not the one that runs.
        cpu=f"{emulator} on {cpu or 'an unknown processor'}" if emulated else cpu or architecture,
        features=() if emulated else features,
        cores=_allowed_cores(read("/proc/self/status")),
        governor=_line(read, _GOVERNOR) or None,
        load=float(load[0]) if load else None,
        system=f"Linux {_line(read, '/proc/sys/kernel/osrelease')}".strip(),
    )
    return found.to_dict() | ({"emulator": emulator} if emulated else {})


def condition_files(read: Read) -> dict[str, str]:
    """The files that `read_condition` looks at, those that there are: what ``vitc-run`` prints."""
    found: dict[str, str] = {}

    def keep(path: str) -> str:
        text = read(path)
        if text:
            found[path] = text.partition("\n")[0]
        return text

    read_condition(keep)
    return found


def read_condition(read: Read) -> dict[str, Any]:
    """Temperature, clock and throttling now."""
    zones = _numbers(read, "/sys/class/thermal/thermal_zone{}/temp")
    found: dict[str, Any] = {
        "temperature_c": max((zone // 100 / 10 for zone in zones), default=None),
        "governor": _line(read, _GOVERNOR) or None,
        "frequency_khz": _number(_line(read, f"{_CPU}/cpu0/cpufreq/scaling_cur_freq")),
        "cooling": _cooling(read),
        "firmware_throttled": _number(
            _line(read, "/sys/devices/platform/soc/soc:firmware/get_throttled"), 16
        ),
    }
    events = list(_numbers(read, f"{_CPU}/cpu{{}}/thermal_throttle/core_throttle_count"))
    found["throttle_events"] = sum(events) if events else None
    return {name: value for name, value in found.items() if value is not None}


def _allowed_cores(status: str) -> int:
    """How many processors a process may use, from the text of its status."""
    allowed = "0"
    for line in status.splitlines():
        key, _, value = line.partition(":")
        if key == "Cpus_allowed_list":
            allowed = value.strip()
    ends = [part.split("-") for part in allowed.split(",")]
    return sum(int(end[-1]) - int(end[0]) + 1 for end in ends)


def _cooling(read: Read) -> int | None:
    """Sum of the states of the devices that slow processors down to cool them."""
    device = "/sys/class/thermal/cooling_device{}/{}"
    kinds = takewhile(bool, (_line(read, device.format(i, "type")) for i in range(_MOST)))
    cooling = [i for i, kind in enumerate(kinds) if "cpu" in kind or "Processor" in kind]
    states = [_number(_line(read, device.format(i, "cur_state"))) or 0 for i in cooling]
    return sum(states) if states else None


def _numbers(read: Read, path: str) -> Iterator[int]:
    """The numbers in a row of files, up to the first that there is not."""
    for index in range(_MOST):
        value = _number(_line(read, path.format(index)))
        if value is None:
            return
        yield value


def _line(read: Read, path: str) -> str:
    return read(path).partition("\n")[0].strip()


def _number(text: str, base: int = 10) -> int | None:
    try:
        return int(text, base)
    except ValueError:
        return None
