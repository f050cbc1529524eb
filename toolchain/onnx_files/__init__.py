"""ONNX files of vitc, read, limited, confined, run and compared; no torch is needed.

Comparing needs onnxscript, for the bodies of operators, and is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from vitc.onnx_files.load import ModelFacts, is_inlined, load_onnx, read_facts
from vitc.onnx_files.session import run_with_taps, session, tap_names

if TYPE_CHECKING:
    from vitc.onnx_files.compare import Comparison, Difference, compare_graphs, differing_constants

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

_COMPARING: Final = frozenset({"Comparison", "Difference", "compare_graphs", "differing_constants"})


def __getattr__(name: str) -> Any:
    if name in _COMPARING:
        from vitc.onnx_files import compare

        return getattr(compare, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
