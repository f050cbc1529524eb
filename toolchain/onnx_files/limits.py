"""How large an ONNX file, and what is in it, can be."""

from __future__ import annotations

__all__ = [
    "IR_VERSIONS",
    "LARGEST_FILE",
    "LARGEST_IMAGE",
    "LARGEST_TENSOR",
    "MOST_CALLS",
    "MOST_FUNCTIONS",
    "MOST_INITIALIZERS",
    "MOST_NESTED",
    "MOST_NODES",
    "MOST_PARTS",
    "OPSETS",
]

LARGEST_FILE = 2_000_000_000
"""Bytes; protobuf messages end at 2 GB."""

LARGEST_TENSOR = 1 << 31
"""Elements of a constant."""

LARGEST_IMAGE = 1 << 26
"""Elements of one input image; 8 times 2048 x 2048 x 3 fit."""

MOST_NODES = 100_000
"""Nodes of the graph, its subgraphs and its function bodies; deit-base in format int8 has 1,500."""

MOST_PARTS = 1_000_000
"""Fields of all messages, counted before they are made; deit-small in format int8 has 30,000."""

MOST_INITIALIZERS = 100_000
"""Constants, wherever they are."""

MOST_FUNCTIONS = 256
"""Model-local functions."""

MOST_CALLS = 8
"""Calls of functions inside each other."""

MOST_NESTED = 8
"""Graphs inside each other."""

OPSETS = (13, 26)
"""First and last opset of the standard operators; vitc itself writes 21."""

IR_VERSIONS = (7, 13)
"""First and last version of the file format; vitc itself writes 10."""
