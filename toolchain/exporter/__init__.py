"""PyTorch to ONNX: a network's operators recorded, translated, rewritten, named and written.

It needs torch and is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vitc.exporter.onnx_export import ExportResult, Traced, build, export, trace, trace_frozen

__all__ = ["ExportResult", "Traced", "build", "export", "trace", "trace_frozen"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from vitc.exporter import onnx_export

        return getattr(onnx_export, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
