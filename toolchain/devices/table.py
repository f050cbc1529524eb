"""The kinds of devices behind ``--device``; a new one is one file and one entry here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from vitc.devices.adb import SYNTAX as ADB_SYNTAX
from vitc.devices.adb import AdbDevice
from vitc.devices.device import Device
from vitc.devices.local import LocalDevice
from vitc.devices.qemu import QemuDevice
from vitc.devices.rpc import SYNTAX as RPC_SYNTAX
from vitc.devices.rpc import RpcDevice
from vitc.devices.ssh import SYNTAX as SSH_SYNTAX
from vitc.devices.ssh import SshDevice
from vitc.names import check_device

__all__ = ["DEVICES", "DeviceKind", "parse_device"]


@dataclass(frozen=True)
class DeviceKind:
    """One kind of device.

    Attributes:
        scheme: What stands before ``://``, or the whole word.
        syntax: How to write it.
        summary: One line for people.
        connect: Makes the device from the text a user wrote.
    """

    scheme: str
    syntax: str
    summary: str
    connect: Callable[[str], Device]


DEVICES: Final = (
    DeviceKind("local", "local", "this machine", lambda _: LocalDevice()),
    DeviceKind(
        "qemu", "qemu", "another architecture, emulated by qemu-user", lambda _: QemuDevice()
    ),
    DeviceKind("ssh", SSH_SYNTAX, "another machine, by the system's ssh", SshDevice.parse),
    DeviceKind("adb", ADB_SYNTAX, "an Android device, by adb", AdbDevice.parse),
    DeviceKind("rpc", RPC_SYNTAX, "a TVM RPC server, or a tracker's farm", RpcDevice.parse),
)


def parse_device(text: str) -> Device:
    """The device that a user wrote behind ``--device``.

    Raises:
        VitcError: If there is no such kind, or its address is none.
    """
    scheme = check_device(text).partition("://")[0]
    return next(kind for kind in DEVICES if kind.scheme == scheme).connect(text)
