"""The account of a network without a configuration: what its file stores and its kernels do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import onnx_ir as ir

from vitc.dialect.metadata import LAYER_KEY, MODULE_KEY
from vitc.errors import VitcError
from vitc.extras import need
from vitc.models.account import Account, LayerAccount
from vitc.onnx_files import ModelFacts, tap_names
from vitc.runtime.manifest import StepFacts
from vitc.targets import find

__all__ = ["Work", "account_of_file", "planned", "work_of"]

_FLOATS: Final = "its operators act on floats"
_ANY_TARGET: Final = "x86"
"""What a network computes is the same for every target."""


@dataclass(frozen=True)
class Work:
    """What one step does for one image; `kernel` is empty where none is chosen yet."""

    tap: str
    layer: str
    binary: int
    fp: int
    kernel: str = ""


def work_of(steps: Sequence[StepFacts]) -> list[Work]:
    """What the steps of a manifest do."""
    return [Work(s.tap, s.layer, s.binary, s.fp, s.kernel) for s in steps]


def planned(model: ir.Model, facts: ModelFacts) -> list[Work]:
    """What the steps will do that an exported file is compiled to.

    Raises:
        VitcError: If it is not of format packed, or an operator cannot be compiled.
    """
    if facts.form != "packed":
        raise VitcError(
            f"A network without a configuration is accounted for by its packed file, and this one "
            f"has format {facts.form}.",
            "Export it with --format packed as well, and inspect that.",
        )
    need("Accounting for a file without a configuration", "compile")
    # It brings TVM, which accounts of everything else do without.
    from vitc.compiler.pipeline import make_plan

    steps = make_plan(model, find(_ANY_TARGET), tap_names(model)).steps
    return [Work(s.tap, s.layer, s.cost.binary, s.cost.fp) for s in steps]


@dataclass
class _Row:
    values: int = 0
    bits: int = 0
    stored: int = 0
    work: list[Work] = field(default_factory=list)


def account_of_file(model: ir.Model, steps: Sequence[Work]) -> tuple[Account, dict[str, str]]:
    """The cost by layer, and the kernels of each layer.

    There are no trained values any more: `parameters` are the values that the file stores, and
    `folded_bytes` the bytes that they take there.

    Args:
        model: A packed file.
        steps: What it is compiled to.
    """
    rows: dict[str, _Row] = {}
    for name, value, bits in _constants(model):
        row = rows.setdefault(name, _Row())
        row.values += bits or value.size
        row.bits += bits
        row.stored += value.nbytes
    for name in _layers(model):
        rows.setdefault(name, _Row())
    ahead: list[Work] = []
    for step in steps:
        # A step between two taps is named by its kernel; it works towards the next tap.
        ahead.append(step)
        if step.layer in rows:
            rows[step.layer].work += ahead
            ahead = []
    if ahead:
        rows.setdefault(ahead[-1].layer, _Row()).work += ahead
    kernels = {
        name: ", ".join(dict.fromkeys(step.kernel for step in row.work if step.kernel))
        for name, row in rows.items()
    }
    order = list(dict.fromkeys([*_layers(model), *rows]))
    return (
        Account(tuple(_layer(name, rows[name]) for name in order)),
        {name: kernels[name] for name in order if kernels[name]},
    )


def _layer(name: str, row: _Row) -> LayerAccount:
    binary, fp = sum(step.binary for step in row.work), sum(step.fp for step in row.work)
    only_floats = bool(fp) and not binary
    return LayerAccount(
        name,
        "float" if only_floats else "binary" if binary else "folded",
        parameters=row.values,
        binary_weights=row.bits,
        folded_bytes=row.stored,
        binary_macs=binary,
        fp_macs=fp,
        why=_FLOATS if fp else "",
        taps=tuple(step.tap for step in row.work),
    )


def _layers(model: ir.Model) -> Iterable[str]:
    return [node.metadata_props.get(LAYER_KEY, "") for node in model.graph]


def _constants(model: ir.Model) -> Iterator[tuple[str, ir.TensorProtocol, int]]:
    """Layer, value and number of binary weights of every constant; of sizes nothing is said."""
    seen: set[str] = set()
    for node in model.graph:
        for place, read in enumerate(node.inputs):
            held = None if read is None else read.const_value
            if read is None or held is None or read.name in seen or held.dtype == ir.DataType.INT64:
                continue
            seen.add(str(read.name))
            weight = MODULE_KEY in node.metadata_props and place == 1
            bits = int(held.shape.numpy()[0]) * node.attributes["k"].as_int() if weight else 0
            yield node.metadata_props.get(LAYER_KEY, ""), held, bits
