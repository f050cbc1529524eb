"""Coverage: every binary layer of the model is a binary operator of the file, and nothing else is.

A layer falls back to float if its weights are not binarized; a product of activations, if what
follows its integers is no mask and no threshold. That is an error unless the layer is named as one
that may: a file that is slower and larger than it claims helps nobody. A binary linear whose
integers meet a float operator is one still: its sum is an integer, scaled once.
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
from vitc.models.layers.named import Named
from vitc.names import did_you_mean

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
_UNFUSED = "no rewrite turns what follows its integers into a mask or a threshold"
_READERS = {
    "BinaryScores": frozenset({"RowBestMask", "BiasedBestMask", "ElasticMask"}),
    "MaskSignMatMul": frozenset({"IntegerThreshold", "SumThreshold"}),
}
"""Products of activations, and what reads their integers without a float in between."""

_PRODUCTS = {"BinaryScores": "scores", "MaskSignMatMul": "context"}
"""What `vitc inspect` calls them."""


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
        and node.op_type in _READERS
        and _READERS[node.op_type].isdisjoint(_readers(node))
    }


def settle_float_layers(
    model: nn.Module,
    found: Mapping[str, str],
    known: Collection[str],
    allowed: Collection[str],
) -> dict[str, str]:
    """Hold the layers that are in float against those that may be.

    Args:
        model: Tells modules from layers: what a layer is called is what its taps and `vitc inspect`
            call it.
        found: Layers that are in float, or their modules, and why.
        known: All binary layers, or their modules.
        allowed: Names of layers or modules, or of modules that hold some.

    Returns:
        What was found, by layer.

    Raises:
        VitcError: If a layer falls back that may not, or a name allows nothing.
    """
    found = {_layer_of(model, name): why for name, why in found.items()}
    known = [_layer_of(model, name) for name in known]
    allowed = [_layer_of(model, name) for name in allowed]
    for name in allowed:
        if not any(_covers(name, layer) for layer in known):
            listed = ", ".join([*known][:_LISTED]) + (", .." if len(known) > _LISTED else "")
            near = did_you_mean(name, known)
            raise VitcError(
                f"There is no binary layer {name!r} to allow in float"
                + (f"; there are {listed}." if near == "." else near),
                f"Name one of {listed}, or a module that holds some.",
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
    return dict(found)


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
        wanted = 0 if name in wide else module.parts * module.calls
        if found[name] != wanted:
            raise VitcError(
                f"The binary layer {_layer_of(frozen, name)} became {found[name]} binary operators "
                f"instead of {wanted}.",
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
    if node.op_type in _PRODUCTS and LAYER_KEY in properties:
        return f"{properties[LAYER_KEY]}.{_PRODUCTS[node.op_type]}"
    return properties.get(MODULE_KEY) or properties.get(LAYER_KEY) or str(node.name)


def _layer_of(model: nn.Module, name: str) -> str:
    """The layer of a module, by the name that its taps have; what is no module's keeps its name."""
    for path, module in model.named_modules():
        if isinstance(module, Named) and _covers(path, name):
            return module.name + name.removeprefix(path)
    return name


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
