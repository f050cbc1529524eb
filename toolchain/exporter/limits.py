"""How large an ONNX file can be."""

from __future__ import annotations

__all__ = ["LARGEST_FILE"]

LARGEST_FILE = 2_000_000_000
"""Bytes; protobuf messages end at 2 GB."""
