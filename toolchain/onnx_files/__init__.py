"""ONNX files of vitc, read, limited, confined, run and compared; no torch is needed."""

from __future__ import annotations

from vitc.onnx_files.compare import Comparison, Difference, compare_graphs, differing_constants
from vitc.onnx_files.load import ModelFacts, is_inlined, load_onnx, read_facts
from vitc.onnx_files.session import run_with_taps, session, tap_names

__all__ = [
    "Comparison",
    "Difference",
    "ModelFacts",
    "compare_graphs",
    "differing_constants",
    "is_inlined",
    "load_onnx",
    "read_facts",
    "run_with_taps",
    "session",
    "tap_names",
]
