"""PyTorch to ONNX, and reading, running and comparing what was written.

`export`, `build` and `ExportResult` need torch and are imported when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vitc.exporter.compare import Difference, differing_constants
from vitc.exporter.load import ModelFacts, load_onnx, read_facts
from vitc.exporter.session import run_with_taps, session, tap_names

if TYPE_CHECKING:
    from vitc.exporter.onnx_export import ExportResult, build, export

__all__ = [
    "Difference",
    "ExportResult",
    "ModelFacts",
    "build",
    "differing_constants",
    "export",
    "load_onnx",
    "read_facts",
    "run_with_taps",
    "session",
    "tap_names",
]

_TORCH = frozenset({"ExportResult", "build", "export"})


def __getattr__(name: str) -> Any:
    if name in _TORCH:
        from vitc.exporter import onnx_export

        return getattr(onnx_export, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
