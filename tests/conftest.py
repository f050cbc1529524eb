"""What the tests share: golden files; qemu, sshd and an ARM userland where they are required."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.absent import absent
from tests.processors import HAS_AMX
from vitc.devices.qemu import find_emulator
from vitc.targets.table import TARGETS, Target

pytest_plugins = (
    "tests.suite.property_profile",
    # One that imports another comes after it.
    "tests.suite.closing_line",
    "tests.devices.sshd",
    "tests.devices.fake_adb",
    "tests.devices.rpc_processes",
    "tests.devices.arm_userland",
    "tests.browser",
)

GOLDEN = "VITC_GOLDEN"
GOLDEN_BESIDE = Path(__file__).parents[1].parent / "shared" / "golden"
USERLAND = Path(__file__).parents[1] / ".venv" / "userland"
AMX_EMULATOR = Path(__file__).parent / "amx" / "amx_emulator.c"
_STRICT = ["-std=gnu11", "-O3", "-Wall", "-Wextra", "-Werror", "-fno-sanitize=all"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--update-frozen`."""
    parser.addoption(
        "--update-frozen",
        action="store_true",
        help="write the generated programs of tests/compiler/frozen again",
    )


def pytest_configure() -> None:
    """Let the programs that tests start be interrupted, also where a shell started the tests in
    the background, or `nohup` did: what is ignored is inherited, what is handled is not.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: None)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """The sums of one thread in every test, whatever the one before it set."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of reference results of the official code: `VITC_GOLDEN`, or beside the project."""
    folder = Path(os.environ.get(GOLDEN) or GOLDEN_BESIDE).resolve()
    if not folder.is_dir():
        absent(f"no golden files at {folder}, {GOLDEN} names their folder", "VITC_REQUIRE_GOLDEN")
    return folder


@pytest.fixture(scope="session")
def need_emulator() -> Callable[[str], str]:
    """Path of a qemu-user program, given its name without prefix."""

    def find(name: str) -> str:
        path = find_emulator(f"qemu-{name}")
        if path is None:
            absent(f"no qemu-{name}, `make qemu` fetches it", "VITC_REQUIRE_QEMU")
        return str(path)

    return find


@pytest.fixture(scope="session")
def need_counting_emulator(need_emulator: Callable[[str], str]) -> Callable[[str], str]:
    """Like `need_emulator`, of one that loads plugins."""

    def find(name: str) -> str:
        path = need_emulator(name)
        done = subprocess.run([path, "-help"], capture_output=True, text=True, check=False)
        if "-plugin" not in done.stdout:
            what = f"{Path(path).name} loads no plugins, `make qemu` fetches one that does"
            absent(what, "VITC_REQUIRE_QEMU")
        return path

    return find


@pytest.fixture(scope="session")
def need_sshd() -> str:
    """Path of the OpenSSH server."""
    path = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if path is None or shutil.which("ssh") is None:
        absent("the OpenSSH server is not installed", "VITC_REQUIRE_SSH")
    return str(path)


@pytest.fixture(scope="session")
def need_userland(need_emulator: Callable[[str], str]) -> Path:
    """The Python of an emulated 64-bit ARM machine that has the TVM runtime."""
    need_emulator("aarch64")
    python = USERLAND / "python3"
    if not python.exists():
        absent(f"no ARM userland at {USERLAND}, `make userland` makes it", "VITC_REQUIRE_USERLAND")
    return python


@pytest.fixture(scope="session")
def amx(tmp_path_factory) -> ctypes.CDLL | None:
    """Lets this process execute AMX: by the processor (None), or by the emulator of tests/amx."""
    from vitc.bench.peaks import permit_tiles
    from vitc.compiler.link import run_zig

    if HAS_AMX:
        permit_tiles()
        return None

    folder = tmp_path_factory.mktemp("amx")
    run_zig([*_STRICT, "-shared", "-fPIC", "-o", "emulator.so", str(AMX_EMULATOR)], folder)
    return ctypes.CDLL(str(folder / "emulator.so"))


@pytest.fixture(scope="session")
def amx_runner(tmp_path_factory) -> Path | None:
    """`vitc-run` with the emulator in it; None where the processor has AMX."""
    if HAS_AMX:
        return None
    from vitc.compiler.link import RUNNER_SOURCES, run_zig, runtime_sources

    folder = tmp_path_factory.mktemp("amx-runner")
    runtime = runtime_sources()
    sources = [AMX_EMULATOR, *(runtime / name for name in RUNNER_SOURCES)]
    options = ["-target", TARGETS["x86-amx"].runner, "-static", "-Dsyscall=amx_syscall"]
    run_zig([*options, *_STRICT, f"-I{runtime}", *map(str, sources), "-o", "vitc-run"], folder)
    return folder / "vitc-run"


@pytest.fixture
def amx_artefacts(amx_runner, monkeypatch) -> None:
    """Lets artefacts for x86-amx run here: the emulator is in their runner, so none is refused.

    All their products are on tiles, those of small networks too, which vectors would take less time
    for.
    """
    monkeypatch.setattr("vitc.compiler.rules.linear.tiles_pay", lambda _lanes, _length: True)
    if amx_runner is None:
        return
    from vitc.compiler import compile as compiling

    linking_runner = compiling.linking_runner

    @contextmanager
    def link(work: Path, out: Path, target: Target) -> Iterator[Callable[[], object]]:
        if target.name == "x86-amx":
            yield lambda: shutil.copy(amx_runner, out)
        else:
            with linking_runner(work, out, target) as wait:
                yield wait

    monkeypatch.setattr(compiling, "linking_runner", link)
    monkeypatch.setitem(TARGETS, "x86-amx", without_amx())


def without_amx() -> Target:
    """The target x86-amx, but its artefacts do not ask for AMX."""
    features = tuple(f for f in TARGETS["x86-amx"].features if not f.startswith("amx"))
    return replace(TARGETS["x86-amx"], features=features)


@pytest.fixture(autouse=True)
def _no_width_of_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A width that something left in the environment would fold what a test reads."""
    monkeypatch.delenv("COLUMNS", raising=False)
