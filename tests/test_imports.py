"""What the package imports of itself goes one way, as docs/design.md has it, and in no circle."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
SOURCES = {"vitc": "toolchain", "vitc.passes": "passes", "vitc.targets": "targets"}


def modules() -> dict[str, Path]:
    """Files by the names of their modules."""
    found = {}
    for package, folder in SOURCES.items():
        for file in (REPOSITORY / folder).rglob("*.py"):
            parts = file.relative_to(REPOSITORY / folder).with_suffix("").parts
            found[".".join((package, *parts)).removesuffix(".__init__")] = file
    return found


def imported(source: str, known: set[str]) -> Iterator[str]:
    """Modules of vitc that a module imports, in functions too; not what only types are of.

    Args:
        source: Of the module.
        known: Names of modules.
    """
    tree = ast.parse(source)
    types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if id(node) in types:
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in known else node.module for name in names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def graph() -> dict[str, set[str]]:
    """Which modules each module imports."""
    files = modules()
    known = set(files)
    return {
        name: set(imported(file.read_text(encoding="utf-8"), known)) & known - {name}
        for name, file in files.items()
    }


def package(module: str) -> str:
    return module.split(".")[1] if "." in module else module


def stated() -> list[str]:
    """The packages in the order of docs/design.md."""
    text = (REPOSITORY / "docs" / "design.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"^Imports go one way: (.*)\.$", text, re.MULTILINE)
    return re.findall(r"`(\w+)`", line)


def circles(arrows: dict[str, set[str]]) -> list[str]:
    """What is left when modules that import nothing left are taken away, again and again."""
    left = {name: set(others) for name, others in arrows.items()}
    while True:
        ends = [name for name, others in left.items() if not others & left.keys()]
        if not ends:
            return sorted(left)
        for name in ends:
            del left[name]


def test_a_package_imports_only_those_before_it():
    order = stated()
    arrows = graph()
    # The package itself offers what the others have; `__main__` starts the command line.
    packages = {package(name) for name in arrows} - {"vitc", "__main__"}
    assert packages == set(order)
    upward = [
        f"{name} imports {other}"
        for name, others in sorted(arrows.items())
        for other in sorted(others)
        if {package(name), package(other)} <= packages
        and order.index(package(other)) > order.index(package(name))
    ]
    assert not upward


def test_no_module_imports_itself_by_way_of_others():
    assert circles(graph()) == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import vitc.a\n", {"vitc.a"}),
        ("from vitc import a, version\n", {"vitc.a", "vitc"}),
        ("from vitc.a import thing\n", {"vitc.a"}),
        ("def f():\n    from vitc.a import thing\n", {"vitc.a"}),
        ("if TYPE_CHECKING:\n    from vitc.a import Thing\n", set()),
        ("if typing.TYPE_CHECKING:\n    import vitc.a\nimport vitc.b\n", {"vitc.b"}),
    ],
)
def test_every_way_to_import_is_seen(source, found):
    assert set(imported(source, {"vitc", "vitc.a", "vitc.b"})) == found


def test_a_circle_is_seen():
    arrows = {"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}
    # `a` only leads there, but cannot be taken away before.
    assert circles(arrows) == ["a", "b", "c"]
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []
