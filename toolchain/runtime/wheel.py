"""A wheel of an artefact, for people who want its answers and have neither vitc nor a compiler.

It holds the library, `vitc.runtime.packaged` as the package itself, and vitc's reading of pictures;
it needs NumPy, and for files of pictures Pillow.
"""

from __future__ import annotations

import base64
import hashlib
import json
import keyword
import os
import re
import sys
import zipfile
from collections.abc import Mapping
from importlib import resources
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Final

from vitc.errors import VitcError
from vitc.outputs import claim_file
from vitc.runtime.artefact import Artefact
from vitc.targets.table import Target

__all__ = ["package", "platform_tags"]

_SOURCES: Final[Mapping[str, tuple[str, str]]] = {
    "__init__.py": ("vitc.runtime", "packaged.py"),
    "_errors.py": ("vitc", "errors.py"),
    "_picture.py": ("vitc.models", "picture.py"),
}
"""Files of the wheel, and where vitc has them."""

_PARTS: Final = {"vitc.errors": "_errors", "vitc.models.picture": "_picture"}
_LINK: Final = re.compile(r"(x86_64|aarch64|arm)-linux-gnu(?:eabihf)?\.(\d+)\.(\d+)")
_MACHINES: Final = {"arm": "armv7l"}
_EARLIEST: Final = (1980, 1, 1, 0, 0, 0)
"""The date of every file, so that one artefact gives one wheel."""

_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_TAKEN: Final = frozenset(
    name.lower() for name in (*sys.stdlib_module_names, "numpy", "PIL", "pillow", "vitc")
)
"""What a package of that name would hide, or pip would put it in the place of."""
_VERSION: Final = re.compile(r"\d+(\.\d+)*((a|b|rc)\d+)?(\.post\d+)?(\.dev\d+)?")


def platform_tags(target: Target) -> list[str]:
    """Tags of PEP 600 (and PEP 599) of the machines that a target's library runs on.

    Raises:
        VitcError: If pip installs nothing on them.
    """
    found = _LINK.fullmatch(target.link)
    if found is None:
        raise VitcError(
            f"No wheel is for {target.name}: its library is linked with no glibc.",
            "Use the library itself, as docs/integrate.md says.",
        )
    arch, major, minor = found.groups()
    machine = _MACHINES.get(arch, arch)
    tags = [f"manylinux_{major}_{minor}_{machine}"]
    return [*tags, f"manylinux2014_{machine}"] if (major, minor) == ("2", "17") else tags


def package(
    artefact: Artefact | str | os.PathLike[str],
    out: str | os.PathLike[str] = ".",
    *,
    name: str | None = None,
    version: str = "1.0",
    force: bool = False,
) -> Path:
    """Make a wheel of a classifier: its library, its labels and `predict`.

    Args:
        artefact: An artefact of one image and logits, or its folder.
        out: Folder that the wheel is written into.
        name: What the package is imported by; None for the name of the artefact's folder.
        version: Of the wheel.
        force: Whether a wheel of that name may be replaced.

    Returns:
        The wheel, whose name says which machines it is for.

    Raises:
        VitcError: If it is no classifier of pictures, its target has no wheels, or the name or
            version is none.
    """
    opened = artefact if isinstance(artefact, Artefact) else Artefact.open(Path(artefact))
    chosen = opened.path.absolute().name if name is None else name
    if not _NAME.fullmatch(chosen) or keyword.iskeyword(chosen):
        raise VitcError(
            f"{chosen!r} is no name of a package.", "Choose one of letters and digits: --name cats."
        )
    if chosen.lower() in _TAKEN:
        raise VitcError(
            f"{chosen!r} is a package already, of Python or of what the wheel needs.",
            "Choose another name: --name cats.",
        )
    if not _VERSION.fullmatch(version):
        raise VitcError(f"{version!r} is no version.", "Write numbers: 1.0.2.")
    if opened.manifest.entries[0].classifier is None:
        raise VitcError(
            f"{opened.path} is no classifier of one image, which is what a wheel predicts with.",
            "Use its library, as docs/integrate.md says.",
        )
    tags, shown = platform_tags(opened.target), opened.preprocessing
    wheel = Path(out) / f"{chosen}-{version}-py3-none-{'.'.join(tags)}.whl"
    files = {f"{chosen}/{file}": _source(chosen, file) for file in _SOURCES}
    files[f"{chosen}/py.typed"] = b""
    files[f"{chosen}/libvitc_model.so"] = opened.library.read_bytes()
    facts = {
        "labels": list(opened.manifest.labels or map(str, range(opened.classes))),
        "background": list(shown.background),
        "preprocessing": shown.to_dict(),
        "images": opened.manifest.entries[0].inputs[0].dtype,
        "target": opened.target.name,
        "source_sha256": opened.manifest.source_sha256,
        "vitc": opened.manifest.vitc,
    }
    files[f"{chosen}/model.json"] = json.dumps(facts, indent=1).encode()
    info = f"{chosen}-{version}.dist-info"
    files[f"{info}/METADATA"] = _metadata(chosen, version, opened).encode()
    files[f"{info}/WHEEL"] = _wheel_facts(tags).encode()
    Path(out).mkdir(parents=True, exist_ok=True)
    with claim_file(wheel, force=force) as claimed, claimed.aside() as part:
        _write(part, files, f"{info}/RECORD")
    return wheel


def _source(name: str, file: str) -> bytes:
    home, source = _SOURCES[file]
    text = resources.files(home).joinpath(source).read_text(encoding="utf-8")
    for module, part in _PARTS.items():
        text = text.replace(f"from {module} import", f"from {name}.{part} import")
    return text.encode()


def _metadata(name: str, version: str, artefact: Artefact) -> str:
    return (
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        f"Summary: A classifier of {artefact.classes} classes, compiled by vitc for "
        f"{artefact.target.name}\nRequires-Python: >=3.10\nRequires-Dist: numpy>=1.26\n"
        "Provides-Extra: pillow\nRequires-Dist: pillow>=11; extra == 'pillow'\n"
    )


def _wheel_facts(tags: list[str]) -> str:
    lines = ["Wheel-Version: 1.0", f"Generator: vitc ({installed_version('vitc')})"]
    lines += ["Root-Is-Purelib: false", *(f"Tag: py3-none-{tag}" for tag in tags)]
    return "\n".join(lines) + "\n"


def _write(file: Path, contents: Mapping[str, bytes], record: str) -> None:
    lines = []
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in contents.items():
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            lines.append(f"{name},sha256={digest},{len(data)}\n")
            archive.writestr(_entry(name), data)
        archive.writestr(_entry(record), "".join([*lines, f"{record},,\n"]))


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _EARLIEST)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    return entry
