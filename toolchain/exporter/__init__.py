"""PyTorch to ONNX, and reading, running and comparing what was written.

What traces and exports needs torch and is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vitc.exporter.compare import Comparison, Difference, compare_graphs, differing_constants
from vitc.exporter.load import ModelFacts, load_onnx, read_facts
from vitc.exporter.session import run_with_taps, session, tap_names

if TYPE_CHECKING:
    from vitc.exporter.onnx_export import ExportResult, Traced, build, export, trace

__all__ = [
    "Comparison",
    "Difference",
    "ExportResult",
    "ModelFacts",
    "Traced",
    "build",
    "compare_graphs",
    "differing_constants",
    "export",
    "load_onnx",
    "read_facts",
    "run_with_taps",
    "session",
    "tap_names",
    "trace",
]

_TORCH = frozenset({"ExportResult", "Traced", "build", "export", "trace"})


def __getattr__(name: str) -> Any:
    if name in _TORCH:
        from vitc.exporter import onnx_export

        return getattr(onnx_export, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
