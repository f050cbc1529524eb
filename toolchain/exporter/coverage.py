"""Coverage: every binary layer of the model is a binary operator of the file, and nothing else is.

A layer falls back to float if its weights are not binarized, or if no rewrite could turn what
follows its integers into a threshold or a residual sum. That is an error unless the layer is named
as one that may: a file that is slower and larger than it claims helps nobody.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping

import onnx_ir as ir
from torch import nn

from vitc.dialect import DOMAIN
from vitc.dialect.metadata import LAYER_KEY, MODULE_KEY
from vitc.errors import VitcError
from vitc.models import binary_modules

__all__ = [
    "check_modules",
    "fallen_layers",
    "known_layers",
    "settle_float_layers",
    "wide_layers",
]

_LINEARS = frozenset({"BinaryLinear", "BinaryLinearThreshold", "BinaryLinearResidual"})
_LISTED = 12
_WIDE = "it has 32-bit weights"
_UNFUSED = "no rewrite turns what follows its integers into a threshold or a residual sum"
_READERS = {"BinaryScores": "RowBestMask", "MaskSignMatMul": "IntegerThreshold"}
"""Products of activations, and what reads their integers without a float in between."""


def wide_layers(model: nn.Module) -> dict[str, str]:
    """Binary modules whose weights are not binarized: name to reason."""
    return {
        name: _WIDE
        for name, module in binary_modules(model).items()
        if getattr(module, "weight_bits", 1) != 1
    }


def fallen_layers(graph: ir.Graph) -> dict[str, str]:
    """Layers of a rewritten graph whose integers become floats before a bit is made: to reason."""
    return {
        _layer(node): _UNFUSED
        for node in graph
        if node.domain == DOMAIN
        and (
            node.op_type == "BinaryLinear"
            or (node.op_type in _READERS and _READERS[node.op_type] not in _readers(node))
        )
    }


def settle_float_layers(
    found: Mapping[str, str], known: Collection[str], allowed: Collection[str]
) -> None:
    """Hold the layers that are in float against those that may be.

    Args:
        found: Layers that are in float, and why.
        known: All binary layers.
        allowed: Names of layers, or of modules that hold some.

    Raises:
        VitcError: If a layer falls back that may not, or a name allows nothing.
    """
    for name in allowed:
        if not any(_covers(name, layer) for layer in known):
            listed = ", ".join([*known][:_LISTED]) + (", .." if len(known) > _LISTED else "")
            raise VitcError(
                f"There is no binary layer {name!r} to allow in float; there are {listed}.",
                "Name one of them, or a module that holds some.",
            )
        if not any(_covers(name, layer) for layer in found):
            raise VitcError(
                f"{name} is binary in the file, so there is nothing to allow.",
                f"Leave `--allow-float {name}` away.",
            )
    for layer, why in found.items():
        if not any(_covers(name, layer) for name in allowed):
            raise VitcError(
                f"The layer {layer} would fall back to float: {why}.",
                f"Mend it; or add `--allow-float {layer}`, for a file that runs in ONNX Runtime "
                "but is not compiled.",
            )


def check_modules(graph: ir.Graph, frozen: nn.Module) -> None:
    """Check that binary modules and binary operators correspond exactly.

    Raises:
        VitcError: If a layer became too few or too many operators, or an operator has no layer.
    """
    found = Counter(
        node.metadata_props.get(MODULE_KEY, "")
        for node in graph
        if node.domain == DOMAIN and node.op_type in _LINEARS
    )
    wide, modules = wide_layers(frozen), binary_modules(frozen)
    for name, module in modules.items():
        wanted = 0 if name in wide else module.parts
        if found[name] != wanted:
            raise VitcError(
                f"The binary layer {name} became {found[name]} binary operators instead of "
                f"{wanted}.",
                "Run with --dump-ir and look for the pass in which it vanishes.",
            )
    strangers = sorted(set(found) - set(modules))
    if strangers:
        raise VitcError(
            f"A binary operator belongs to no binary layer of the model: {strangers[0] or '?'}.",
            "Binary weights must be buffers of BinaryLinear modules.",
        )


def known_layers(graph: ir.Graph, model: nn.Module) -> list[str]:
    """Names of all layers that can fall back: binary modules, and layers with products."""
    products = (_layer(node) for node in graph if node.op_type in _READERS and node.domain)
    return list(dict.fromkeys((*binary_modules(model), *products)))


def _layer(node: ir.Node) -> str:
    properties = node.metadata_props
    return properties.get(MODULE_KEY) or properties.get(LAYER_KEY) or str(node.name)


def _readers(node: ir.Node) -> Iterator[str]:
    waiting = list(node.outputs[0].consumers())
    while waiting:
        reader = waiting.pop()
        if reader.op_type in ("Reshape", "Transpose", "Identity"):
            waiting += reader.outputs[0].consumers()
        else:
            yield reader.op_type


def _covers(name: str, layer: str) -> bool:
    return layer == name or layer.startswith(f"{name}.")
