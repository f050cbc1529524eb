"""What pyproject.toml names is the whole package: a wheel has every file of it."""

from __future__ import annotations

import tomllib
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
SETUPTOOLS = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]


def folder_of(package: str) -> Path:
    """Where the sources of a package lie, by the longest prefix that pyproject.toml maps."""
    parts = package.split(".")
    for length in range(len(parts), 0, -1):
        mapped = SETUPTOOLS["package-dir"].get(".".join(parts[:length]))
        if mapped is not None:
            return REPOSITORY.joinpath(mapped, *parts[length:])
    raise AssertionError(f"pyproject.toml maps no folder to {package}")


def test_a_wheel_holds_every_file_of_the_package() -> None:
    held: set[Path] = set()
    for package in SETUPTOOLS["packages"]:
        folder = folder_of(package)
        for pattern in ("*.py", *SETUPTOOLS["package-data"].get(package, [])):
            held |= set(folder.glob(pattern))
    sources = {
        path
        for folder in SETUPTOOLS["package-dir"].values()
        for path in (REPOSITORY / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }

    assert sorted(str(path.relative_to(REPOSITORY)) for path in sources - held) == []
