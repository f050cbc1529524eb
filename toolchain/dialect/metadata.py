"""Keys under which an ONNX file of vitc says what it is and where its parts come from."""

from __future__ import annotations

__all__ = [
    "CONFIG_KEY",
    "DIALECT_KEY",
    "ENTRIES_KEY",
    "FLOAT_KEY",
    "FORMS",
    "FORM_KEY",
    "LABELS_KEY",
    "LAYER_KEY",
    "MODULE_KEY",
    "PASSES_KEY",
    "PREPROCESSING_KEY",
    "SOURCE_KEY",
    "TAP_KEY",
    "VERSION_KEY",
    "layer_of_tap",
]

FORMS = ("packed", "int8", "float")

VERSION_KEY = "vitc.version"
DIALECT_KEY = "vitc.dialect"
FORM_KEY = "vitc.scheme"
CONFIG_KEY = "vitc.config"
PREPROCESSING_KEY = "vitc.preprocessing"
LABELS_KEY = "vitc.labels"
SOURCE_KEY = "vitc.source_sha256"
PASSES_KEY = "vitc.passes"
FLOAT_KEY = "vitc.float_layers"
ENTRIES_KEY = "vitc.entries"

LAYER_KEY = "vitc.layer"
"""On a node: the tap name it works for, without its last part."""
MODULE_KEY = "vitc.module"
"""On a binary linear: name of the PyTorch module whose weight it holds."""
TAP_KEY = "vitc.tap"
"""On a value whose name is a tap name."""


def layer_of_tap(tap: str) -> str:
    """Return the layer of a tap: `blocks.0.attn` of `blocks.0.attn.query`."""
    return tap.rpartition(".")[0] or tap
