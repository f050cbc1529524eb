"""An ONNX file against the model that it was exported from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import onnx_ir as ir
import torch
from onnx_ir import tensor_adapters

from vitc.devices.source import Description
from vitc.errors import VitcError
from vitc.exporter import Traced, build, trace_frozen
from vitc.exporter.example import Example
from vitc.models.network import Network
from vitc.onnx_files import compare_graphs, is_inlined
from vitc.onnx_files.ports import input_ports
from vitc.verify.candidate import OnnxCandidate
from vitc.verify.comparison import Images, compare
from vitc.verify.forcing import Reference
from vitc.verify.report import CheckReport, ConstantDifference

if TYPE_CHECKING:
    from vitc.onnx_files import ModelFacts

__all__ = ["check_file", "same_network"]


def check_file(
    path: Path,
    found: tuple[ir.Model, ModelFacts],
    reference: Reference,
    images: Images,
    say: Callable[[str], None],
) -> CheckReport:
    """Compare a file with the reference: every parameter, and what it computes.

    Args:
        path: What to call it.
        found: What was read of it.
        reference: What it was made from.
        images: What to run on.
        say: Told what is being done.

    Raises:
        VitcError: If it does not run, or holds another network.
    """
    loaded, facts = found
    model, source = reference.model, reference.source
    example = None
    if isinstance(model, Network):
        same_network(path, Description.of_onnx(path, facts), model)
    elif not isinstance(source, Traced):
        example = _example(loaded)
    say("comparing every parameter")
    candidate = OnnxCandidate(path, loaded)
    if not isinstance(source, Traced):
        source = trace_frozen(model, reference.frozen, example)
    again, _ = build(
        source,
        form=facts.form,
        allow_float=tuple(facts.float_layers),
        inline=is_inlined(loaded, facts.form),
    )
    compared = compare_graphs(loaded, again)
    compared.name_taps()
    parameters = [
        ConstantDifference(entry.layer or entry.name, entry.name, entry.what)
        for entry in compared.differences
    ]
    try:
        return compare(candidate, reference, images, parameters=parameters, say=say)
    except VitcError as error:
        if not parameters:
            raise
        first = parameters[0]
        raise VitcError(
            f"{path} does not run ({error.message}), and {first.name} of {first.layer or 'it'} is "
            f"not what the reference exports to: {first.detail}.",
            "Export the checkpoint again.",
        ) from error


def _example(loaded: ir.Model) -> Example:
    """What the reference is traced with: what the file takes."""
    made = {}
    for value, port in zip(loaded.graph.inputs, input_ports(loaded), strict=True):
        dtype = tensor_adapters.to_torch_dtype(value.dtype or ir.DataType.FLOAT)
        made[port.name] = torch.zeros(port.sizes(2), dtype=dtype)
    return made if len(made) > 1 else next(iter(made.values()))


def same_network(path: Path, found: Description, model: Network) -> None:
    """Refuse what says of itself that it is another network than the reference.

    Raises:
        VitcError: If it does.
    """
    own, theirs = (dataclasses.asdict(config) for config in (model.config, found.config))
    differing = [
        f"{key} {theirs.get(key)} (not {own[key]})" for key in own if own[key] != theirs.get(key)
    ]
    if differing:
        raise VitcError(
            f"{path} holds another network than the reference: {', '.join(differing)}.",
            "Give the checkpoint that it was made from.",
        )
