"""A real OpenSSH server on this machine, with a throw-away key and a configuration of its own."""

from __future__ import annotations

import contextlib
import getpass
import os
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from vitc.devices.ssh import SSH_CONFIG

# Nothing here takes as long, on whatever machine; a test that waits in vain must end some time.
HANG_S = 300


@dataclass
class Server:
    """A running sshd.

    Attributes:
        url: The device.
        home: Folder in which runs make their temporary folder.
        configuration: Of the client.
        process: Of the server.
    """

    url: str
    home: Path
    configuration: Path
    process: subprocess.Popen[bytes]

    def kill(self) -> None:
        """Kill the server and its connections without a word, as if the network were gone."""
        own = psutil.Process(self.process.pid)
        for process in [own, *own.children(recursive=True)]:
            # A connection that has just ended is as good as killed.
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.name().startswith("sshd"):
                    process.kill()
        self.process.wait()

    def leftovers(self) -> list[str]:
        """What lies in its home, and the runners that were started from there."""
        running = [
            " ".join(process.info["cmdline"])
            for process in psutil.process_iter(["cmdline", "cwd"])
            if str(self.home) in (process.info["cwd"] or "")
        ]
        return [path.name for path in self.home.iterdir()] + running


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def key(path: Path) -> Path:
    program = shutil.which("ssh-keygen")
    assert program is not None
    command = [program, "-q", "-t", "ed25519", "-N", "", "-f", str(path)]
    subprocess.run(command, check=True, timeout=60)
    return path


def wait_for(condition: Callable[[], object], seconds: float = HANG_S) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def login_shell() -> str:
    """Script to start instead of the user's shell, with $SSH_ORIGINAL_COMMAND; none if empty."""
    return ""


@pytest.fixture
def ssh_server(
    tmp_path: Path, need_sshd: str, login_shell: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Server]:
    folder = tmp_path / "sshd"
    folder.mkdir()
    home = folder / "home"
    home.mkdir()
    host, user = key(folder / "host"), key(folder / "user")
    port = free_port()
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    (folder / "sshd_config").write_text(
        f'ListenAddress 127.0.0.1:{port}\nHostKey "{host}"\nAuthorizedKeysFile "{user}.pub"\n'
        f"PidFile none\nUsePAM no\nStrictModes no\nPasswordAuthentication no\n"
        f"KbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n"
        f'SetEnv TMPDIR="{home}"\n'
        + (f"ForceCommand exec sh {shlex.quote(str(folder / 'login'))}\n" if login_shell else "")
    )
    (folder / "login").write_text(login_shell)
    public = host.with_suffix(".pub").read_text()
    (folder / "known").write_text(f"[127.0.0.1]:{port} {public}")
    configuration = folder / "ssh_config"
    configuration.write_text(
        f'IdentityFile "{user}"\nIdentitiesOnly yes\nIdentityAgent none\n'
        f'UserKnownHostsFile "{folder / "known"}"\nStrictHostKeyChecking yes\n'
    )
    monkeypatch.setenv(SSH_CONFIG, str(configuration))
    process = subprocess.Popen(
        [need_sshd, "-D", "-q", "-f", str(folder / "sshd_config"), "-E", str(folder / "log")]
    )
    assert wait_for(lambda: answers(port)), (folder / "log").read_text()
    made = Server(f"ssh://{getpass.getuser()}@127.0.0.1:{port}", home, configuration, process)
    yield made
    if process.poll() is None:
        made.kill()
