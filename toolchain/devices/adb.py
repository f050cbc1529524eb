"""An Android device behind adb, for target android-arm64."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

from vitc.devices.device import DeviceRun, Inputs, RunRequest
from vitc.devices.remote import run_remotely, supports_remotely
from vitc.errors import VitcError

if TYPE_CHECKING:
    from vitc.runtime.artefact import Artefact

__all__ = ["SYNTAX", "AdbDevice"]

SYNTAX: Final = "adb://SERIAL"
# As `adb devices` lists them: a serial number, host:port, or a name of mDNS, which is free text
# ("adb-13e75597-AbCdEf (2)._adb-tls-connect._tcp"). No shell reads it; "-x" would be an option.
_SERIAL: Final = re.compile(r"(?![\s-])[^/]*[^/\s]")


@dataclass(frozen=True)
class AdbDevice:
    """Copies an artefact to /data/local/tmp of an Android device and runs it there.

    Attributes:
        serial: As `adb devices` lists it.
    """

    serial: str
    emulated: bool = False
    remote: bool = True

    @classmethod
    def parse(cls, text: str) -> AdbDevice:
        """The device of a URL.

        Raises:
            VitcError: If it is no such URL.
        """
        serial = text.removeprefix("adb://")
        if not _SERIAL.fullmatch(serial) or not serial.isprintable():
            raise VitcError(f"{text!r} is no adb device.", f"Write {SYNTAX}, see `adb devices`.")
        return cls(serial)

    @property
    def name(self) -> str:
        """As a user writes it."""
        return f"adb://{self.serial}"

    @property
    def base(self) -> str:
        """See `vitc.devices.remote.Link.base`."""
        return "/data/local/tmp"

    def supports(self, artefact: Artefact) -> None:
        """Connect, and raise if the device is of another architecture."""
        supports_remotely(self, artefact)

    def run(self, artefact: Artefact, inputs: Inputs, request: RunRequest) -> DeviceRun:
        """See `vitc.devices.Device.run`."""
        return run_remotely(self, artefact, inputs, request)

    def lease(self, script: str, scratch: Path) -> list[str]:
        """See `vitc.devices.remote.Link.lease`."""
        return self.shell(script, scratch)

    def shell(self, script: str, scratch: Path) -> list[str]:
        """See `vitc.devices.remote.Link.shell`."""
        del scratch
        return self._adb("shell", f"sh -c {shlex.quote(script)}")

    def push(self, local: Path, remote: PurePosixPath) -> list[str]:
        """See `vitc.devices.remote.Link.push`."""
        return self._adb("push", str(local), str(remote))

    def pull(self, remote: PurePosixPath, local: Path) -> list[str]:
        """See `vitc.devices.remote.Link.pull`."""
        return self._adb("pull", str(remote), str(local))

    def hint(self, said: str) -> str:
        """See `vitc.devices.remote.Link.hint`."""
        if "unauthorized" in said:
            return "Unlock the device and allow debugging from this machine."
        return "`adb devices` lists what is connected; allow USB debugging on the device."

    def _adb(self, *arguments: str) -> list[str]:
        return ["adb", "-s", self.serial, *arguments]
