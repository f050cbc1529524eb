"""Builds vitc with setuptools; an editable install is one that type checkers and editors read.

Three folders are mapped to one package, which setuptools serves to Python by an import hook. Type
checkers do not run it, so the install also names a folder of links to the sources, as a package of
stubs (PEP 561): they read the sources through it, and Python does not see it.
"""

from __future__ import annotations

import base64
import hashlib
import tomllib
import zipfile
from pathlib import Path
from typing import Any, Final

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403 - the other hooks are those of setuptools

_LINKS: Final = Path("build", "editable")
_PTH: Final = "vitc_types.pth"


def build_editable(
    wheel_directory: str,
    config_settings: dict[str, Any] | None = None,
    metadata_directory: str | None = None,
) -> str:
    """As of PEP 660, with a path to the links beside what setuptools writes."""
    name = build_meta.build_editable(wheel_directory, config_settings, metadata_directory)
    _link_sources(_LINKS / "vitc-stubs")
    _add(Path(wheel_directory, name), _PTH, f"{_LINKS.absolute()}\n".encode())
    return name


def _link_sources(folder: Path) -> None:
    """Link everything in the folders of pyproject.toml, so that new files in them are there."""
    settings = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
    mapped = settings["tool"]["setuptools"]["package-dir"]
    folder.mkdir(parents=True, exist_ok=True)
    for link in folder.iterdir():
        link.unlink()
    for entry in Path(mapped.pop("vitc")).absolute().iterdir():
        if entry.name != "__pycache__":
            # Of a package of stubs, the first file has to be called one.
            name = "__init__.pyi" if entry.name == "__init__.py" else entry.name
            (folder / name).symlink_to(entry)
    for package, source in mapped.items():
        (folder / package.partition(".")[2]).symlink_to(Path(source).absolute())


def _add(wheel: Path, name: str, data: bytes) -> None:
    """Put a file into a wheel and its record."""
    with zipfile.ZipFile(wheel) as old:
        files = {entry: old.read(entry) for entry in old.namelist()}
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    record = next(entry for entry in files if entry.endswith(".dist-info/RECORD"))
    files[record] = f"{name},sha256={digest},{len(data)}\n".encode() + files[record]
    files[name] = data
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as new:
        for entry, content in files.items():
            new.writestr(entry, content)
