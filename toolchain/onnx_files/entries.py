"""The entries of a file: programs that an artefact has side by side, each a part of its graph.

A file names them in its property `vitc.entries`, JSON by name. An entry is the operators that lead
to some outputs (`{"outputs": ["image"]}`), with the inputs that those read; or a scan
(`{"query": "text", "documents": "image"}`), which scores the packed vectors that two others give,
or with `"first": true` the first of each side, and stands in no file: its one operator follows from
them. ONNX Runtime runs such a file whole.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from vitc.dialect.entries import Entries, Scan
from vitc.dialect.metadata import ENTRIES_KEY
from vitc.errors import VitcError

__all__ = [
    "RUN",
    "check_entry_name",
    "entries_to_json",
    "entry_models",
    "read_entries",
    "scan_of",
]

RUN: Final = "run"
"""Name of the entry of a file that names none."""

_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")
_RESERVED: Final = frozenset({"model", "self_test"})
_VECTORS: Final = 3
"""Axes of what is scanned: images, vectors, bits."""


def check_entry_name(name: str) -> str:
    """Return a name that an entry can have.

    Raises:
        VitcError: If it is none.
    """
    if not _NAME.fullmatch(name) or name in _RESERVED:
        raise VitcError(
            f"{name!r} is no name of an entry.",
            "Wanted are small letters, digits and _, a letter first; not "
            f"{' or '.join(sorted(_RESERVED))}.",
        )
    return name


def entries_to_json(entries: Entries) -> str:
    """The property of a file."""
    return json.dumps(
        {
            name: {"query": entry.query, "documents": entry.documents}
            | ({"first": True} if entry.first else {})
            if isinstance(entry, Scan)
            else {"outputs": list(entry)}
            for name, entry in entries.items()
        }
    )


def read_entries(values: Mapping[str, Any]) -> Entries:
    """The inverse, of parsed JSON.

    Raises:
        ValueError: If that is no such property.
        VitcError: If an entry has a name that none can have.
    """
    made: dict[str, Sequence[str] | Scan] = {}
    for name, said in values.items():
        check_entry_name(name)
        if not isinstance(said, dict):
            raise ValueError(f"{name} is no entry")
        outputs, first = said.get("outputs"), said.get("first", False)
        if set(said) - {"first"} == {"query", "documents"} and isinstance(first, bool):
            made[name] = Scan(str(said["query"]), str(said["documents"]), first=first)
        elif set(said) == {"outputs"} and isinstance(outputs, list) and outputs:
            made[name] = tuple(map(str, outputs))
        else:
            raise ValueError(f"{name} is no entry")
    for name, entry in made.items():
        others = (entry.query, entry.documents) if isinstance(entry, Scan) else ()
        if any(isinstance(made.get(other), Scan | None) for other in others):
            raise ValueError(f"{name} scans what is no entry")
    return made


def entry_models(model: ir.Model, entries: Entries) -> dict[str, ir.Model]:
    """Return the graph of each entry.

    Args:
        model: A file's graph; it is not changed.
        entries: What the file names; none for the whole as `RUN`.

    Raises:
        VitcError: If an output is not there, or what is scanned is no two sets of vectors.
    """
    if not entries:
        return {RUN: model}
    made = {
        name: _leading_to(model, name, outputs)
        for name, outputs in entries.items()
        if not isinstance(outputs, Scan)
    }
    return {
        name: scan_of(made[entry.query], made[entry.documents], first=entry.first)
        if isinstance(entry, Scan)
        else made[name]
        for name, entry in entries.items()
    }


def scan_of(query: ir.Model, documents: ir.Model, *, first: bool = False) -> ir.Model:
    """Return the scan of what two graphs give, or of the first vector of each.

    Raises:
        VitcError: If they do not give one set of vectors each, of as many bits.
    """
    (a, d), (b, width) = _vectors(query), _vectors(documents)
    if d != width:
        raise VitcError(
            f"Texts have vectors of {d} bits and images of {width}, so none can be scored.",
            "Export towers that were trained together.",
        )
    # It brings onnxscript, which reading a file does without.
    from vitc.dialect.scan_graph import scan_graph

    return scan_graph(1, 1, d) if first else scan_graph(a, b, d)


def _vectors(model: ir.Model) -> tuple[int, int]:
    outputs = list(model.graph.outputs)
    shape = outputs[0].shape if len(outputs) == 1 else None
    sizes = [] if shape is None else [size for size in shape[1:] if isinstance(size, int)]
    if outputs[0].dtype != ir.DataType.UINT8 or len(sizes) != _VECTORS - 1:
        said = ", ".join(f"{value.name} {value.dtype} {value.shape}" for value in outputs)
        raise VitcError(
            f"A scan scores bits [images, vectors, d], and an entry that it names gives {said}.",
            "Let that entry have one output: vectors of signs.",
        )
    return sizes[0], sizes[1]


def _leading_to(model: ir.Model, entry: str, outputs: Sequence[str]) -> ir.Model:
    """A copy of what leads to some outputs."""
    part = ir.from_proto(ir.to_proto(model))
    graph = part.graph
    kept = {str(value.name): value for value in graph.outputs}
    missing = sorted(set(outputs) - set(kept))
    if missing:
        raise VitcError(
            f"The entry {entry} gives {', '.join(missing)}, which is no output of the file.",
            f"Its outputs are {', '.join(kept)}.",
        )
    graph.outputs[:] = [kept[name] for name in outputs]
    RemoveUnusedNodesPass()(part)
    _count_own_images(graph)
    RemoveUnusedNodesPass()(part)
    graph.inputs[:] = [value for value in graph.inputs if value.uses()]
    part.metadata_props.pop(ENTRIES_KEY, None)
    return part


def _count_own_images(graph: ir.Graph) -> None:
    """Take the number of images from an input that is read, not from one that is only counted."""
    read = [
        value
        for value in graph.inputs
        if any(use.node.op_type != "Shape" or use.node.domain for use in value.uses())
    ]
    for value in graph.inputs:
        if value in read or not read:
            continue
        for use in tuple(value.uses()):
            use.node.replace_input_with(use.idx, read[0])
