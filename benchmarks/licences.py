"""Writes the licences of vitc's dependencies: `python benchmarks/licences.py > docs/licences.md`.

Reads the metadata of what is installed, so run it where `constraints.txt` is. Development tools are
left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution

from vitc.extras import EXTRAS


def licence(found: Distribution) -> str:
    """The licence expression, else the classifiers, else the first line of the licence field."""
    facts = found.metadata
    if facts.get("License-Expression"):
        return str(facts["License-Expression"])
    named = [c.rpartition(" :: ")[2] for c in facts.get_all("Classifier", []) if "License ::" in c]
    return ", ".join(named) or str(facts.get("License") or "not stated").strip().splitlines()[0]


def requirements(found: Distribution, extras: Iterable[str] = ("",)) -> list[str]:
    """Names that a distribution needs on this machine, with extras."""
    from packaging.requirements import Requirement

    needed = (Requirement(text) for text in found.requires or [])
    return [
        r.name
        for r in needed
        if r.marker is None or any(r.marker.evaluate({"extra": extra}) for extra in extras)
    ]


def main() -> None:
    """Print the table."""
    wanted = [n for n in requirements(distribution("vitc"), ("", *EXTRAS)) if n != "vitc"]
    seen: dict[str, Distribution] = {}
    direct = {re.sub(r"[-_.]+", "-", name).lower() for name in wanted}
    while wanted:
        name = re.sub(r"[-_.]+", "-", wanted.pop()).lower()
        if name in seen:
            continue
        try:
            seen[name] = distribution(name)
        except PackageNotFoundError:
            continue
        wanted += requirements(seen[name])
    print(
        "# Licences\n\nvitc is under Apache-2.0. What it needs, "
        "by `python benchmarks/licences.py`:\n"
    )
    print("| package | version | licence | needed by |\n|---|---|---|---|")
    for name, found in sorted(seen.items()):
        by = "vitc" if name in direct else "a dependency"
        print(f"| {name} | {found.version} | {licence(found)} | {by} |")
    print(
        "\nAn artefact holds none of these: its library is vitc's driver, generated kernels and "
        "weights; its runner links musl (MIT),\nwhich comes with zig."
    )


if __name__ == "__main__":
    main()
