"""docs/python.md: the public names of vitc, from their docstrings."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import vitc

PAGE: Final = Path(__file__).parents[1] / "docs" / "python.md"

_GROUPS: Final = {
    "The way": ["new", "load", "save", "train", "export", "compile", "open", "check", "bench"],
    "More": ["predict", "see", "inspect", "tune", "load_twin", "with_embedding"],
    "What comes out": [
        "Artefact",
        "Prediction",
        "Seen",
        "ExportResult",
        "TrainResult",
        "CheckReport",
        "BenchReport",
        "TuneReport",
        "Inspection",
        "Network",
    ],
    "How": [
        "ExportOptions",
        "CompileOptions",
        "PredictOptions",
        "CheckOptions",
        "BenchOptions",
        "TuneOptions",
        "TrainOptions",
        "ModelConfig",
        "Preprocessing",
        "Stated",
    ],
}
_SECTION: Final = re.compile(r"(Args|Attributes|Returns|Raises|Yields):")
_ENTRY: Final = re.compile(r"(\*{0,2}\w+): (.*)")


def page() -> str:
    """The whole text."""
    listed = [name for names in _GROUPS.values() for name in names]
    groups = _GROUPS | {"Else": [name for name in vitc.__all__ if name not in listed]}
    parts = ["# vitc in Python", _prose(inspect.cleandoc(vitc.__doc__ or "").partition("\n")[2])]
    parts.append("Made from the docstrings by `python benchmarks/python_page.py`.")
    for title, names in groups.items():
        parts.append(f"## {title}")
        for name in names:
            # Where it is: `vitc.bench` is a package too, once somebody has imported that.
            parts += _entry(name, getattr(import_module(vitc.home_of(name)), name))
    return "\n\n".join(parts) + "\n"


def _entry(name: str, thing: Any) -> Iterator[str]:
    yield f"### vitc.{name}"
    if not inspect.isclass(thing):
        yield f"    vitc.{name}{_signature(thing)}"
    yield _prose(inspect.getdoc(thing) or "")
    if inspect.isclass(thing):
        methods = [
            _method(name, member)
            for name, member in vars(thing).items()
            if not name.startswith("_") and inspect.getdoc(member) and _is_member(member)
        ]
        if methods:
            yield "\n".join(methods)


def _is_member(member: object) -> bool:
    return inspect.isfunction(member) or isinstance(member, property | classmethod)


def _method(name: str, member: Any) -> str:
    first = (inspect.getdoc(member) or "").partition("\n\n")[0].replace("\n", " ")
    if isinstance(member, property):
        return f"- `.{name}`: {_code(first)}"
    function = member.__func__ if isinstance(member, classmethod) else member
    names = [p.name for p in inspect.signature(function).parameters.values()][1:]
    return f"- `.{name}({', '.join(names)})`: {_code(first)}"


def _signature(thing: Any) -> str:
    """Parameters without types, defaults that are functions left out."""
    shown: list[str] = []
    for parameter in inspect.signature(thing).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in shown:
            shown.append("*")
        default = parameter.default
        if default is parameter.empty:
            shown.append(parameter.name)
        elif callable(default):
            shown.append(f"{parameter.name}=..")
        else:
            shown.append(f"{parameter.name}={default!r}")
    return f"({', '.join(shown)})"


def _prose(text: str) -> str:
    """A docstring of Google's style as Markdown."""
    blocks = []
    for block in text.strip("\n").split("\n\n"):
        head, _, rest = block.partition("\n")
        section = _SECTION.fullmatch(head)
        if section is None:
            blocks.append(block if block.startswith("    ") else _code(block))
            continue
        lines = _joined(textwrap.dedent(rest))
        if section[1] in ("Returns", "Yields"):
            blocks.append(f"{section[1]}: {_code(' '.join(lines))}")
        else:
            entries = [_ENTRY.sub(r"- `\1`: \2", line) for line in lines]
            label = "Raises:\n\n" if section[1] == "Raises" else ""
            blocks.append(label + _code("\n".join(entries)))
    return "\n\n".join(blocks)


def _joined(text: str) -> list[str]:
    """Entries, each as one line."""
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith(" ") and lines:
            lines[-1] += f" {line.strip()}"
        else:
            lines.append(line.strip())
    return lines


def _code(text: str) -> str:
    return text.replace("``", "`")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
