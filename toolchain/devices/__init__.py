"""Machines that run artefacts, behind one interface."""

from __future__ import annotations

from vitc.devices.adb import AdbDevice
from vitc.devices.device import Device, DeviceRun, RunRequest
from vitc.devices.local import LocalDevice
from vitc.devices.qemu import QemuDevice
from vitc.devices.rpc import RpcDevice
from vitc.devices.ssh import SshDevice
from vitc.devices.table import DEVICES, DeviceKind, parse_device

__all__ = [
    "DEVICES",
    "AdbDevice",
    "Device",
    "DeviceKind",
    "DeviceRun",
    "LocalDevice",
    "QemuDevice",
    "RpcDevice",
    "RunRequest",
    "SshDevice",
    "parse_device",
]
