"""What vitc needs on this machine, and whether it is there."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final, Literal, TypeAlias

from vitc.devices.machine import machine
from vitc.devices.qemu import INSTALL_HINT, find_emulator
from vitc.errors import VitcError
from vitc.extras import EXTRAS, absent_modules, install
from vitc.places import find_cache, scratch_folder
from vitc.targets import TARGETS, find

__all__ = ["Finding", "State", "diagnose"]

State: TypeAlias = Literal["ok", "optional", "missing"]

_DISTRIBUTION: Final = "vitc"
_TIMEOUT_S: Final = 600
"""Against hangs only: zig is slow where nothing is in its cache yet."""

_ENOUGH_MEMORY: Final = 4 << 30
_ENOUGH_DISK: Final = 1 << 20

_IMPORTS: Final = """
import importlib, json, sys
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
        said = ""
    except BaseException as error:
        said = f"{type(error).__name__}: {error}"
    print("\\n" + json.dumps([name, said]), flush=True)
"""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked for.

    Attributes:
        what: Its name.
        state: ``ok``, ``optional`` (not here, vitc runs without) or ``missing`` (needed).
        found: What is here.
        advice: What to do about it; empty if nothing.
    """

    what: str
    state: State
    found: str
    advice: str = ""


def diagnose(say: Callable[[str], None] = lambda _: None) -> list[Finding]:
    """Try what vitc needs: packages, linker, folders, memory, processor and emulators.

    Args:
        say: Told what is being tried.
    """
    say("importing the packages")
    found = [_python(), *_packages()]
    if not absent_modules("compile"):
        say("linking")
        found.append(_linker())
    say("looking at folders, memory and processor")
    return [*found, *_folders(), *_memory(), _processor(), *_emulators()]


def _python() -> Finding:
    found = ".".join(str(part) for part in sys.version_info[:3])
    return Finding("python", "ok", found)


def _packages() -> Iterator[Finding]:
    """The packages of the core and those of extras that are here, then each extra."""
    homes = _homes()
    requirements = _requirements()
    broken = _broken([homes[name.lower()] for name in requirements if name.lower() in homes])
    for name, (requirement, extras) in requirements.items():
        again = f"python -m pip install --force-reinstall '{requirement}'"
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            if not extras:
                advice = again.replace(" --force-reinstall", "")
                yield Finding(name, "missing", "not installed", advice)
            continue
        said = broken.get(homes.get(name.lower(), ""), "")
        if said:
            yield Finding(name, "missing", f"{version} cannot be imported: {said}", again)
        else:
            yield Finding(name, "ok", version)
    for extra in EXTRAS:
        missing = absent_modules(extra)
        if missing:
            found = f"not installed: {', '.join(missing)}"
            yield Finding(f"{_DISTRIBUTION}[{extra}]", "optional", found, install(extra))
        else:
            yield Finding(f"{_DISTRIBUTION}[{extra}]", "ok", "complete")


def _homes() -> dict[str, str]:
    """Modules by the distributions that they come with."""
    homes: dict[str, str] = {}
    for module, distributions in metadata.packages_distributions().items():
        for name in distributions:
            homes.setdefault(name.lower(), module)
            if module.lower() == name.lower():
                homes[name.lower()] = module
    return homes


def _requirements() -> dict[str, tuple[str, set[str]]]:
    """Packages, what vitc wants of each, and the extras that want it; none is the core."""
    found: dict[str, tuple[str, set[str]]] = {}
    for text in metadata.requires(_DISTRIBUTION) or ():
        requirement, _, marker = text.partition(";")
        name = re.split(r"[\s<>=!~;\[]", requirement, maxsplit=1)[0]
        extra = re.search(r"extra == .(\w+)", marker)
        # An extra that is made of others wants vitc itself.
        if name == _DISTRIBUTION or (extra and extra.group(1) not in EXTRAS):
            continue
        found.setdefault(name, (requirement.strip(), set()))[1].update(
            extra.groups() if extra else ()
        )
    return found


def _broken(modules: Sequence[str]) -> dict[str, str]:
    """Modules that cannot be imported, to what they say; tried in a process that may die of it."""
    done = _tried([sys.executable, "-c", _IMPORTS, *modules])
    said = dict(json.loads(line) for line in done.stdout.splitlines() if line.startswith('["'))
    for module in modules:
        if module not in said:
            said[module] = f"the process ended with {done.returncode}"
            break
    return {module: text for module, text in said.items() if text}


def _tried(command: Sequence[str], folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=_TIMEOUT_S,
        cwd=folder,
        env={**os.environ, **_zig_folders()},
        check=False,
    )


def _zig_folders() -> dict[str, str]:
    try:
        store = str(find_cache().folder / "zig")
    except VitcError:
        return {}
    return {"ZIG_GLOBAL_CACHE_DIR": store, "ZIG_LOCAL_CACHE_DIR": store}


def _linker() -> Finding:
    again = "python -m pip install --force-reinstall ziglang"
    try:
        with scratch_folder("doctor") as folder:
            (folder / "probe.c").write_text("int probe(void) { return 0; }\n", encoding="ascii")
            zig = [sys.executable, "-m", "ziglang"]
            done = _tried([*zig, "cc", "-shared", "-nostdlib", "-o", "probe.so", "probe.c"], folder)
            if done.returncode or not (folder / "probe.so").is_file():
                lines = done.stderr.strip().splitlines() or ["no message"]
                return Finding("linker", "missing", f"does not link: {lines[-1]}", again)
            return Finding("linker", "ok", f"zig {_tried([*zig, 'version']).stdout.strip()} links")
    except VitcError as error:
        return Finding("linker", "missing", error.message, error.hint)
    except (OSError, subprocess.SubprocessError) as error:
        return Finding("linker", "missing", str(error), again)


def _folders() -> Iterator[Finding]:
    try:
        yield Finding("current folder", "ok", str(Path.cwd()))
    except OSError:
        yield Finding(
            "current folder", "missing", "it was deleted", "Change to a folder that exists."
        )
    try:
        with scratch_folder("doctor") as folder:
            (folder / "probe").write_bytes(bytes(_ENOUGH_DISK))
            free = shutil.disk_usage(folder).free / 1e9
        yield Finding("temporary folder", "ok", f"{tempfile.gettempdir()}, {free:.1f} GB free")
    except VitcError as error:
        yield Finding("temporary folder", "missing", error.message, error.hint)
    try:
        cache = find_cache()
    except VitcError as error:
        yield Finding("cache folder", "missing", error.message, error.hint)
        return
    if cache.passed_over:
        yield Finding("cache folder", "optional", str(cache.folder), f"{cache.passed_over}.")
    else:
        yield Finding("cache folder", "ok", str(cache.folder))


def _memory() -> Iterator[Finding]:
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < _ENOUGH_MEMORY:
        yield Finding(
            "address space",
            "missing",
            f"limited to {limit / 1e9:.1f} GB",
            "Raise it, such as with `ulimit -v unlimited`: the frameworks alone take gigabytes.",
        )


def _processor() -> Finding:
    facts = machine()
    try:
        target = find("native")
    except VitcError as error:
        return Finding("processor", "optional", facts.cpu, str(error))
    features = ", ".join(target.features)
    return Finding("processor", "ok", f"{facts.cpu}; native is {target.name} ({features})")


def _emulators() -> Iterator[Finding]:
    here = machine().architecture
    wanted = {f"qemu-{t.emulator}": t for t in TARGETS.values() if here not in t.machine}
    for name in wanted:
        path = find_emulator(name)
        if path is None:
            yield Finding(name, "optional", "not installed", INSTALL_HINT)
            continue
        try:
            done = _tried([path, "--version"])
        except OSError as error:
            yield Finding(name, "optional", f"{path} does not start: {error}", INSTALL_HINT)
            continue
        if done.returncode:
            yield Finding(name, "optional", f"{path} ends with {done.returncode}", INSTALL_HINT)
        else:
            yield Finding(name, "ok", path)
