"""A machine behind ssh: the system's ssh with the user's own configuration, keys and agent."""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from vitc.devices.device import DeviceRun, Inputs, RunRequest
from vitc.devices.remote import quote_remotely, run_remotely, supports_remotely
from vitc.errors import VitcError

if TYPE_CHECKING:
    from vitc.runtime.artefact import Artefact

__all__ = ["SSH_CONFIG", "SYNTAX", "SshDevice"]

SSH_CONFIG: Final = "VITC_SSH_CONFIG"
"""Environment variable that names a file for ``ssh -F`` in place of the user's own."""

SYNTAX: Final = "ssh://[user@]host[:port][/folder]"
_NAME: Final = re.compile(r"[A-Za-z0-9_:][A-Za-z0-9_.%:-]*")
# What ssh does not read as an escape or a quote; sockets have paths of 108 bytes, ssh adds 17.
_SOCKET: Final = re.compile(r"[A-Za-z0-9_./@+=, -]{1,90}")
_OPTIONS: Final = {
    "BatchMode": "yes",  # never asks for a password, a passphrase or a yes
    "PasswordAuthentication": "no",
    "KbdInteractiveAuthentication": "no",
    "ConnectTimeout": "10",
    "ServerAliveInterval": "5",
    "ServerAliveCountMax": "3",
    "ClearAllForwardings": "yes",
    "ForwardAgent": "no",
    "RemoteCommand": "none",
    "RequestTTY": "no",
    "ControlPersist": "no",
    "LogLevel": "ERROR",
}


@dataclass(frozen=True)
class SshDevice:
    """Copies an artefact to a temporary folder of another machine and runs it there.

    Files go through the shell's own ``cat``, so that a board without an sftp server will do, and
    all through one connection. A silent connection is given up after 15 s.

    Attributes:
        destination: Host, with the user in front if one was given; an alias of the ssh
            configuration will do.
        port: None for that of the configuration.
        folder: Where the temporary folder is made; None for the machine's own choice.
    """

    destination: str
    port: int | None = None
    folder: str | None = None
    emulated: bool = False
    remote: bool = True

    @classmethod
    def parse(cls, text: str) -> SshDevice:
        """The device of a URL.

        Raises:
            VitcError: If it is no such URL, or holds a password.
        """
        try:
            url = urlsplit(text)
            user, host, port = url.username, url.hostname, url.port
        except ValueError as error:
            raise VitcError(f"{text!r} is no ssh device: {error}.", f"Write {SYNTAX}.") from error
        if url.password is not None:
            raise VitcError(
                "An ssh device takes no password.",
                "Use a key or an agent: `ssh-copy-id user@host` once, then ssh://user@host.",
            )
        # urlsplit puts the host into lower case, but an alias of the configuration may be in both.
        host = url.netloc.rpartition("@")[2].removesuffix(f":{port}") if host else ""
        host = host.strip("[]").removesuffix(":")
        named = [part for part in (user, host) if part is not None]
        if not all(_NAME.fullmatch(part) for part in named) or url.query or url.fragment:
            raise VitcError(f"{text!r} is no ssh device.", f"Write {SYNTAX}.")
        return cls("@".join(named), port, url.path.rstrip("/") or None)

    @property
    def name(self) -> str:
        """As a user writes it."""
        port = "" if self.port is None else f":{self.port}"
        return f"ssh://{self.destination}{port}{self.folder or ''}"

    @property
    def base(self) -> str:
        """See `vitc.devices.remote.Link.base`."""
        return '"${TMPDIR:-/tmp}"' if self.folder is None else quote_remotely(self.folder)

    def supports(self, artefact: Artefact) -> None:
        """Connect, and raise if the machine is of another architecture."""
        supports_remotely(self, artefact)

    def run(self, artefact: Artefact, inputs: Inputs, request: RunRequest) -> DeviceRun:
        """See `vitc.devices.Device.run`."""
        return run_remotely(self, artefact, inputs, request)

    def lease(self, script: str, scratch: Path) -> list[str]:
        """See `vitc.devices.remote.Link.lease`; the connection that the others share."""
        return self._ssh(script, scratch, "ControlMaster=yes")

    def shell(self, script: str, scratch: Path) -> list[str]:
        """See `vitc.devices.remote.Link.shell`."""
        return self._ssh(script, scratch, "ControlMaster=no")

    def push(self, local: Path, remote: PurePosixPath) -> None:
        """See `vitc.devices.remote.Link.push`; `scp` would need an sftp server there."""

    def pull(self, remote: PurePosixPath, local: Path) -> None:
        """See `vitc.devices.remote.Link.pull`; `scp` would need an sftp server there."""

    def hint(self, said: str) -> str:
        """See `vitc.devices.remote.Link.hint`."""
        if "Permission denied" in said:
            return (
                f"vitc uses keys and the agent only: make `ssh {self._by_hand} true` work without "
                "a question first, such as by `ssh-copy-id`."
            )
        if "Host key verification failed" in said:
            return f"Connect once by hand, `ssh {self._by_hand}`, to see and accept its host key."
        return f"Make `ssh {self._by_hand} true` work first."

    @property
    def _by_hand(self) -> str:
        return self.destination if self.port is None else f"-p {self.port} {self.destination}"

    def _ssh(self, script: str, scratch: Path, control: str) -> list[str]:
        command = ["ssh", "-x"]
        configuration = os.environ.get(SSH_CONFIG)
        if configuration:
            command += ["-F", configuration]
        for key, value in _OPTIONS.items():
            command += ["-o", f"{key}={value}"]
        socket = str(scratch / "ssh")
        # Without a place for the socket, each command connects by itself.
        if _SOCKET.fullmatch(socket):
            command += ["-o", control, "-o", f'ControlPath="{socket}"']
        else:
            command += ["-o", "ControlMaster=no", "-o", "ControlPath=none"]
        if self.port is not None:
            command += ["-p", str(self.port)]
        return [*command, "--", self.destination, f"exec sh -c {shlex.quote(script)}"]
