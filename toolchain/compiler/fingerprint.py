"""What a compiler is made of: the same fingerprint makes the same bytes of the same ONNX file."""

from __future__ import annotations

import functools
import hashlib
import platform
from importlib import resources
from importlib.metadata import version
from pathlib import Path

__all__ = ["compiler_fingerprint"]

_PACKAGES = ("vitc.compiler", "vitc.targets", "vitc.runtime", "vitc.dialect")
_DEPENDENCIES = ("apache-tvm", "ziglang", "numpy")


@functools.cache
def compiler_fingerprint() -> str:
    """Return the SHA-256 of sources and versions that the bytes of a library depend on."""
    digest = hashlib.sha256(platform.machine().encode())
    for name in _DEPENDENCIES:
        digest.update(f"{name} {version(name)}\n".encode())
    for package in _PACKAGES:
        root = Path(str(resources.files(package)))
        for path in sorted(p for p in root.rglob("*") if p.suffix in {".py", ".c", ".h", ".hpp"}):
            digest.update(f"{package}/{path.relative_to(root).as_posix()}\n".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()
