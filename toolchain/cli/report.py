"""``--report F.html``: the result of a check or a bench as one file that needs no other."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from vitc.outputs import FileOutput

__all__ = ["artefact_sizes", "write_report"]

_TEMPLATE: Final = "report.html"


def write_report(
    output: FileOutput,
    title: str,
    result: Mapping[str, Any],
    *,
    machine: Mapping[str, Any],
    sizes: Mapping[str, Any] | None = None,
) -> None:
    """Write a report, complete or not at all.

    Args:
        output: The file.
        title: Its headline.
        result: The JSON form of a check or a bench.
        machine: Facts about where it ran.
        sizes: Of the artefact's parts, bytes.

    Raises:
        VitcError: If the file cannot be written.
    """
    from importlib.metadata import version

    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("vitc.cli", "."), autoescape=True, undefined=StrictUndefined
    )
    environment.filters["shown"] = _shown
    text = environment.get_template(_TEMPLATE).render(
        title=title,
        result=result,
        machine=machine,
        sizes=sizes or {},
        command=shlex.join(["vitc", *sys.argv[1:]]),
        when=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=version("vitc"),
    )
    output.write(text)


def artefact_sizes(path: Path) -> Mapping[str, Any]:
    """What the manifest says of sizes; empty for what is no artefact folder."""
    if not path.is_dir():
        return {}
    from vitc.runtime.artefact import Artefact

    sizes = Artefact.open(path, verify=False).manifest.sizes
    return sizes if isinstance(sizes, Mapping) else {}


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
